//! Text that people type for people to read: names, reasons, subject lines.
//!
//! The text must show what was meant: at least one character is visible, nothing in it reverses the direction of the
//! text around it, and no invisible mark hides between its letters (Unicode UAX 9, UTS 39 section 3.1.1).

use unicode_normalization::char::is_combining_mark;

/// How many lines a text may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    /// A name, a subject.
    One,
    /// A reason: line breaks and tabs are part of it.
    Several,
}

/// The text cannot be shown as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "1 to {0} characters, at least one of them visible, and none a control character or an invisible or bidirectional mark \
     (ZWJ and ZWNJ within words excepted)"
)]
pub struct InvalidText(pub usize);

/// The trimmed text, if it is readable and has 1 to `max` characters.
pub fn readable(text: &str, max: usize, lines: Lines) -> Result<&str, InvalidText> {
    let text = text.trim();
    let mut length = 0;
    let mut visible = false;
    let mut before = None;
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        length += 1;
        let fits = match c {
            '\n' | '\t' => lines == Lines::Several,
            '\r' => lines == Lines::Several && characters.peek() == Some(&'\n'),
            ZWNJ | ZWJ => before.is_some_and(joins) && characters.peek().copied().is_some_and(joins),
            c if is_variation_selector(c) => before.is_some_and(|base| has_variants(base, c)),
            c => !is_hidden(c),
        };
        if !fits || length > max {
            return Err(InvalidText(max));
        }
        visible |= is_visible(c);
        before = Some(c);
    }
    if visible { Ok(text) } else { Err(InvalidText(max)) }
}

/// The text on one line, without unprintable characters: for names that were accepted before [`readable`] existed.
/// Empty if no character is visible.
pub fn cleaned(text: &str) -> String {
    if readable(text, usize::MAX, Lines::One).is_ok() {
        return text.trim().to_owned();
    }
    let shown = |c: char| match c {
        c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}') => Some(' '),
        c if is_hidden(c) || is_variation_selector(c) || matches!(c, ZWNJ | ZWJ) => None,
        c => Some(c),
    };
    let text: String = text.chars().filter_map(shown).collect();
    if text.chars().any(is_visible) { text.trim().to_owned() } else { String::new() }
}

const ZWNJ: char = '\u{200c}';
const ZWJ: char = '\u{200d}';

/// Whether a joiner may stand next to it: within a word, or between the parts of an emoji.
fn joins(c: char) -> bool {
    !c.is_ascii_punctuation() && (is_visible(c) || is_combining_mark(c) || is_variation_selector(c))
}

/// Whether it is visible on its own.
fn is_visible(c: char) -> bool {
    // U+2800 is a Braille cell without dots: a symbol in Unicode, blank on the screen.
    !(c.is_whitespace()
        || is_hidden(c)
        || is_variation_selector(c)
        || is_combining_mark(c)
        || matches!(c, ZWNJ | ZWJ | '\u{2800}'))
}

/// Control and format characters, bidirectional marks, line breaks, fillers and noncharacters: all that Unicode calls
/// default-ignorable (`DerivedCoreProperties`), and all that has no place in a text. Joiners and variation selectors
/// are judged by their context.
fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180e}'
            | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffc}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e00ff}' | '\u{e01f0}'..='\u{e0fff}'
            | '\u{fdd0}'..='\u{fdef}')
        || u32::from(c) & 0xfffe == 0xfffe
}

fn is_variation_selector(c: char) -> bool {
    matches!(c, '\u{180b}'..='\u{180d}' | '\u{180f}' | '\u{fe00}'..='\u{fe0f}' | '\u{e0100}'..='\u{e01ef}')
}

/// Whether a variation selector has a meaning after this character: a form of an ideograph, a Mongolian letter or an
/// emoji. Elsewhere it is only another way to write the same name.
fn has_variants(base: char, selector: char) -> bool {
    match selector {
        '\u{180b}'..='\u{180d}' | '\u{180f}' => matches!(base, '\u{1820}'..='\u{18aa}'),
        '\u{fe0e}' | '\u{fe0f}' => is_visible(base) && !base.is_alphabetic() && !base.is_ascii_punctuation(),
        _ => {
            matches!(base, '\u{2e80}'..='\u{2fdf}' | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}')
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn line(text: &str) -> Result<&str, InvalidText> {
        readable(text, 100, Lines::One)
    }

    #[test]
    fn names_of_all_scripts_are_readable() {
        for text in [
            "Ada",
            "Łódź & Söhne <beta>",
            "O'Neil-Smith, Jr.",
            "李小龍",
            "محمد",
            "יעל",
            "می\u{200c}خواهم",
            "क्\u{200d}ष",
            "👩\u{200d}💻",
            "❤\u{fe0f}\u{200d}🔥 Acme",
            "1\u{fe0f}\u{20e3}",
            "辻\u{e0100}本",
            "e\u{301}mile",
            "=?utf-8?q?x?=",
        ] {
            assert_eq!(line(text), Ok(text), "{text:?}");
        }
        assert_eq!(line(" Ada\u{a0}"), Ok("Ada"), "spaces at the ends are not part of a name");
    }

    /// Every invisible mark in every position: alone, before, within and after a name.
    #[test]
    fn what_hides_is_refused_wherever_it_stands() {
        let hidden = "\0\u{7}\u{7f}\u{85}\u{ad}\u{34f}\u{61c}\u{115f}\u{1160}\u{17b4}\u{180b}\u{180e}\u{200b}\u{200e}\u{200f}\
            \u{2028}\u{2029}\u{202a}\u{202e}\u{2060}\u{2063}\u{2066}\u{2069}\u{206f}\u{3164}\u{fe00}\u{fe0f}\u{feff}\u{ffa0}\
            \u{fff9}\u{fffc}\u{fdd0}\u{ffff}\u{1d173}\u{e0001}\u{e0041}\u{e007f}\u{e0100}\u{10ffff}";
        for mark in hidden.chars() {
            let within = format!("ad{mark}min");
            assert!(line(&within).is_err(), "{within:?}");
            for text in [
                format!("{mark}"),
                format!(" {mark} "),
                format!("{mark}{mark}"),
                format!("{mark}admin"),
                format!("admin{mark}"),
            ] {
                // Line breaks at the ends are trimmed like spaces.
                assert!(
                    line(&text).is_err() || mark.is_whitespace() && line(&text) == Ok("admin"),
                    "{text:?}"
                );
            }
        }
    }

    #[test]
    fn a_name_can_be_seen() {
        for text in [
            "",
            " ",
            "\u{3000}\u{2003}",
            "\u{2800}",
            "\u{2800} \u{2800}",
            "\u{301}",
            "\u{200d}",
            "\u{200c}\u{200c}",
            "\t\n",
        ] {
            assert!(line(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn joiners_stand_within_words() {
        for text in [
            "\u{200d}Ada",
            "Ada\u{200d}",
            "Ada \u{200c}Lovelace",
            "Ada\u{200c} L",
            "A\u{200d}\u{200d}B",
            "A\u{200c}\u{200d}B",
            "Ada\u{200c}.",
            "\u{200c}",
            "A\u{200d}\u{200b}B",
        ] {
            assert!(line(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_reason_may_have_lines_and_a_name_may_not() {
        for text in ["spam\nand worse", "a\tb", "a\r\nb"] {
            assert!(line(text).is_err());
            assert_eq!(readable(text, 100, Lines::Several), Ok(text));
        }
        for text in ["a\rb", "a\u{b}b", "a\u{2028}b", "a\u{1b}[31mb"] {
            assert!(readable(text, 100, Lines::Several).is_err(), "{text:?}");
        }
    }

    #[test]
    fn the_length_is_counted_in_characters() {
        assert!(readable(&"é".repeat(100), 100, Lines::One).is_ok());
        assert_eq!(readable(&"é".repeat(101), 100, Lines::One), Err(InvalidText(100)));
    }

    proptest! {
        #[test]
        fn what_was_cleaned_is_readable_or_nothing(text in any::<String>()) {
            let clean = cleaned(&text);
            prop_assert!(clean.is_empty() || readable(&clean, usize::MAX, Lines::One) == Ok(clean.as_str()), "{:?}", clean);
        }

        #[test]
        fn what_is_readable_stays_as_it_is(text in "\\PC{1,30}") {
            if let Ok(readable) = readable(&text, 30, Lines::One) {
                prop_assert_eq!(readable, text.trim());
                prop_assert!(readable.chars().any(|c| !c.is_whitespace()));
                prop_assert_eq!(cleaned(&text), readable);
            }
        }
    }
}
