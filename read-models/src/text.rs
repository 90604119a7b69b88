//! Texts as searches compare them: without case, marks and the different ways to encode one character.

use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::{canonical_combining_class, is_combining_mark};

/// The class of signs that suppress a vowel, as in Devanagari. They tell words apart, unlike accents.
const VIRAMA: u8 = 9;

/// A text in the form in which it is compared. Both sides of a comparison have to be folded: `ΟΔΥΣΣΕΥΣ` and `οδυσσευς`,
/// `İstanbul` and `istanbul`, `Zoë` in either normalization form and `zoe` are then alike.
pub(crate) fn fold(text: &str) -> String {
    // Upper case first: it joins letters that have two small forms, such as those of sigma, and spells out ß.
    let cased = text.nfkd().filter(|c| is_compared(*c)).flat_map(char::to_uppercase);
    let cased = cased.flat_map(char::to_lowercase).collect::<String>();
    cased.nfkd().filter(|c| is_compared(*c)).collect::<String>().nfc().collect()
}

/// Whether a character of a decomposed text counts: accents, points and joiners do not, vowel signs do.
fn is_compared(c: char) -> bool {
    match c {
        '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' => false,
        c if !is_combining_mark(c) => true,
        c => match canonical_combining_class(c) {
            0 => c.is_alphanumeric(),
            class => class == VIRAMA,
        },
    }
}

/// The words of a text, folded.
pub(crate) fn words(text: &str) -> Vec<String> {
    let is_part = |c: char| c.is_alphanumeric() || is_combining_mark(c);
    let folded = fold(text);
    folded.split(|c| !is_part(c)).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// Where a search may begin to match: at the beginning of the word, and at each character that belongs to a script which
/// writes words without blanks between them, or names as one word (Chinese, Japanese, Korean, the scripts of India and
/// South-East Asia).
pub(crate) fn beginnings(word: &str) -> impl Iterator<Item = &str> {
    let starts = word.char_indices().filter(|(at, c)| *at == 0 || is_joined(*c));
    starts.map(|(at, _)| &word[at..])
}

/// Whether a search word begins a word, or what [`beginnings`] says.
pub(crate) fn begins(word: &str, wanted: &str) -> bool {
    beginnings(word).any(|rest| rest.starts_with(wanted))
}

/// Whether a character is of such a script. A vowel sign begins nothing.
fn is_joined(c: char) -> bool {
    let is_of_script = matches!(c,
        '\u{0900}'..='\u{109f}'
        | '\u{1100}'..='\u{11ff}'
        | '\u{1780}'..='\u{17ff}'
        | '\u{2e80}'..='\u{a4cf}'
        | '\u{ac00}'..='\u{d7ff}'
        | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3ffff}');
    is_of_script && !is_combining_mark(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cases_marks_and_forms_are_alike() {
        for (one, other) in [
            ("Zoë", "zoe"),
            ("Zoe\u{308}", "ZOË"),
            ("ΟΔΥΣΣΕΥΣ", "οδυσσευς"),
            ("Ὀδυσσεύς", "οδυσσευσ"),
            ("İstanbul", "istanbul"),
            ("ISTANBUL", "ıstanbul"),
            ("Straße", "STRASSE"),
            ("Łódź", "łodz"),
            ("ﬁnch", "FINCH"),
            ("Ａｄａ", "ada"),
            ("김철수", "\u{1100}\u{1175}\u{11b7}\u{110e}\u{1165}\u{11af}\u{1109}\u{116e}"),
            ("ガ", "カ\u{3099}"),
            ("फ़ातिमा", "फातिमा"),
            ("محمّد", "محمد"),
        ] {
            assert_eq!(fold(one), fold(other), "{one} and {other}");
        }
        assert_ne!(fold("राम"), fold("रिम"), "a vowel sign is no accent");
        assert_eq!(fold(&fold("İΣß")), fold("İΣß"));
    }

    #[test]
    fn words_are_cut_at_everything_else() {
        assert_eq!(words("Ada M. O'Brien-Łoś"), ["ada", "m", "o", "brien", "łos"]);
        assert_eq!(words("ada+x@example.com"), ["ada", "x", "example", "com"]);
        assert_eq!(words("प्रकाश शर्मा").len(), 2, "a virama is within a word");
        assert_eq!(words("李 小龙"), ["李", "小龙"]);
    }

    #[test]
    fn words_without_blanks_begin_at_each_character() {
        assert_eq!(beginnings("ada").collect::<Vec<_>>(), ["ada"]);
        assert_eq!(beginnings("山田太郎").collect::<Vec<_>>(), ["山田太郎", "田太郎", "太郎", "郎"]);
        for (word, wanted) in [("山田太郎", "太郎"), ("김철수", "철수"), ("प्रकाश", "का"), ("李", "李")]
        {
            assert!(begins(&fold(word), &fold(wanted)), "{wanted} in {word}");
        }
    }
}
