//! Who may change which settings of an app.

use domain::AppSettings;
use domain::setting_kinds::{has_a_link, platform_changes, strong_changes};
use domain::settings::{InvalidSetting, WhatIsWrong};
use effects::senders::Senders;
use http_kit::problem::Problem;
use schemas::field_codes;
use schemas::problems;

/// 403 if a setting changes that only the platform may change.
pub(super) fn require_not_of_the_platform(before: &AppSettings, after: &AppSettings) -> Result<(), Problem> {
    let changed = platform_changes(before, after);
    if changed.is_empty() {
        return Ok(());
    }
    Err(Problem::forbidden().detail(format!("only the platform changes {}", changed.join(", "))))
}

/// 403 if a setting changes that decides where secrets go or who gets in.
pub(super) fn require_weak(before: &AppSettings, after: &AppSettings) -> Result<(), Problem> {
    let strong = strong_changes(before, after);
    if strong.is_empty() {
        return Ok(());
    }
    let detail = format!("only the platform and admins can change {}", strong.join(", "));
    Err(Problem::forbidden().detail(detail))
}

/// 403 for a name that mail clients would show as a link: without a branding, every mail contains the app's name.
pub(super) fn require_no_link(before: &str, name: Option<&str>) -> Result<(), Problem> {
    if name.is_some_and(|name| name != before && has_a_link(name)) {
        let detail = "only the platform and admins can set a name that mail clients show as a link";
        return Err(Problem::forbidden().detail(detail));
    }
    Ok(())
}

/// Names every wrong setting.
pub(super) fn invalid_settings(wrong: Vec<InvalidSetting>) -> Problem {
    let problem = |InvalidSetting { what, pointer, detail }| {
        let (kind, code) = match what {
            WhatIsWrong::Name => (problems::MALFORMED_REQUEST, field_codes::UNKNOWN_MEMBER),
            WhatIsWrong::Type => (problems::MALFORMED_REQUEST, field_codes::INVALID_TYPE),
            WhatIsWrong::Value => (problems::VALIDATION_FAILED, field_codes::INVALID),
        };
        Problem::new(kind).field(format!("/settings{pointer}"), code, detail)
    };
    let joined = wrong.into_iter().map(problem).reduce(Problem::and);
    joined.unwrap_or_else(|| Problem::internal("settings were refused without a reason"))
}

/// Refuses a sender that is not allowed. One that was set under an earlier list stays until it is changed: its mails come
/// from the instance's own sender, with the app's as `Reply-To`.
pub(super) fn check_sender(
    senders: &Senders,
    before: &AppSettings,
    after: &AppSettings,
) -> Result<(), Problem> {
    match &after.branding.sender {
        Some(sender) if before.branding.sender.as_ref() != Some(sender) && !senders.allow(sender) => {
            let detail = "mail from this domain is not allowed: the operator has to list it in \
                          mail.sender_domains first";
            Err(Problem::invalid("/settings/branding/sender", field_codes::INVALID, detail))
        }
        _ => Ok(()),
    }
}
