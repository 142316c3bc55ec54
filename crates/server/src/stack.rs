//! Error stacks as text, taken apart for display (`docs/protocol.md` §4).

use crate::answers::{ErrorDetail, StackFrame};

/// `text` is ours, a Python traceback, or anything: then each line is shown as it is.
pub(crate) fn error_detail(class: &str, message: &str, text: &str) -> ErrorDetail {
    let mut causes = Vec::new();
    let frames = if text.contains('\0') {
        our_frames(text, &mut causes)
    } else {
        foreign_frames(text)
    };
    // The innermost cause comes first in the text; shown is the closest one first.
    causes.reverse();
    ErrorDetail {
        class: class.to_owned(),
        message: message.to_owned(),
        frames,
        causes,
    }
}

fn our_frames(text: &str, causes: &mut Vec<ErrorDetail>) -> Vec<StackFrame> {
    let mut frames = Vec::new();
    for line in text.lines().take(MAX_LINES) {
        let mut fields = line.split('\0');
        let first = fields.next().unwrap_or("");
        let rest: Vec<&str> = fields.collect();
        match (first, rest.as_slice()) {
            ("cause", [class, message @ ..]) if rest.len() <= 2 => causes.push(ErrorDetail {
                class: (*class).to_owned(),
                message: message.join(""),
                frames: std::mem::take(&mut frames),
                causes: Vec::new(),
            }),
            (file, [number, function, source @ ..]) => frames.push(StackFrame {
                file: file.to_owned(),
                line: number.parse().unwrap_or(0),
                function: (*function).to_owned(),
                source: source.join(" "),
            }),
            // A message with line breaks goes on here.
            _ => {}
        }
    }
    frames
}

fn foreign_frames(text: &str) -> Vec<StackFrame> {
    let mut frames: Vec<StackFrame> = Vec::new();
    let lines = text.lines().filter(|l| !l.trim().is_empty());
    for line in lines.take(MAX_LINES) {
        match (python_frame(line), frames.last_mut()) {
            (Some(frame), _) => frames.push(frame),
            (None, Some(frame)) if frame.source.is_empty() && frame.line > 0 => {
                line.trim().clone_into(&mut frame.source);
            }
            (None, _) => frames.push(StackFrame {
                source: line.to_owned(),
                ..StackFrame::default()
            }),
        }
    }
    frames
}

/// `File "/srv/app.py", line 7, in view`
fn python_frame(line: &str) -> Option<StackFrame> {
    let rest = line.trim().strip_prefix("File \"")?;
    let (file, rest) = rest.split_once("\", line ")?;
    let (number, function) = rest.split_once(", in ").unwrap_or((rest, ""));
    Some(StackFrame {
        file: file.to_owned(),
        line: number.parse().ok()?,
        function: function.to_owned(),
        source: String::new(),
    })
}

const MAX_LINES: usize = 2_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_stack_with_causes() {
        let text = "/a.py\u{0}3\u{0}root\u{0}open(x)\ncause\u{0}OSError\u{0}no file\n\
                    /b.py\u{0}5\u{0}load\u{0}root()\ncause\u{0}LoadError\u{0}\n\
                    /c.py\u{0}88\u{0}view\u{0}load()\n/d.py\u{0}9\u{0}pay\u{0}\n";
        let detail = error_detail("Refused", "m", text);
        assert_eq!(detail.frames.len(), 2);
        assert_eq!(
            detail.frames[0],
            StackFrame {
                file: "/c.py".into(),
                line: 88,
                function: "view".into(),
                source: "load()".into()
            }
        );
        let causes: Vec<_> = detail.causes.iter().map(|c| c.class.as_str()).collect();
        assert_eq!(causes, ["LoadError", "OSError"]);
        assert_eq!(detail.causes[1].message, "no file");
        assert_eq!(detail.causes[1].frames[0].function, "root");
    }

    #[test]
    fn a_python_traceback() {
        let text = "Traceback (most recent call last):\n  File \"/a.py\", line 7, in view\n    pay()\n  File \"/b.py\", line 9, in pay\nValueError: no\n";
        let detail = error_detail("ValueError", "no", text);
        let shown: Vec<_> = detail
            .frames
            .iter()
            .map(|f| (f.file.as_str(), f.line, f.source.as_str()))
            .collect();
        assert_eq!(
            shown,
            [
                ("", 0, "Traceback (most recent call last):"),
                ("/a.py", 7, "pay()"),
                ("/b.py", 9, "ValueError: no")
            ]
        );
    }

    #[test]
    fn anything_else_is_shown_line_by_line() {
        let detail = error_detail("E", "", "at com.acme.Shop(Shop.java:3)\nat x");
        assert_eq!(detail.frames.len(), 2);
        assert_eq!(detail.frames[1].source, "at x");
        assert_eq!(error_detail("E", "m", "").frames, []);
    }
}
