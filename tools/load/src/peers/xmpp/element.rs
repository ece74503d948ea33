//! The elements of an XML stream, cut out where they stand, as far as XMPP has them:
//! no comments, no entities declared, no processing instructions but the first (RFC 6120,
//! section 11.1). Nothing is unescaped: nothing that is read here needs it.

use crate::peers::{MESSAGE_MAX_BYTES, PeerError};

/// A child of the stream, or the stream's own beginning.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Element<'a> {
    /// As it is written, with its prefix.
    pub(crate) name: &'a str,
    /// All of it.
    pub(crate) text: &'a str,
    /// Its beginning, from `<` to `>`.
    tag: &'a str,
}

/// What stands between `<` and `>`.
enum Tag {
    Opening,
    Closing,
    /// Without content.
    Empty,
    /// `<?xml …?>`.
    Declaration,
}

const STREAM: &str = "stream:stream";
const MALFORMED: PeerError = PeerError::Malformed("XML");

// === impl Element ===

impl<'a> Element<'a> {
    /// An attribute's value as it is written.
    pub(crate) fn attribute(&self, name: &str) -> Option<&'a str> {
        let mut rest = self.tag.get(1 + self.name.len()..)?;
        loop {
            let (key, value) = rest.split_once('=')?;
            let quote = value.chars().next().filter(|it| matches!(it, '\'' | '"'))?;
            let (value, behind) = value.get(1..)?.split_once(quote)?;
            if key.trim() == name {
                return Some(value);
            }
            rest = behind;
        }
    }

    /// What stands in the first child of this name without attributes, if no element does.
    pub(crate) fn text_of(&self, name: &str) -> Option<&'a str> {
        let content = self.text.get(self.tag.len()..)?;
        let mut rest = content;
        loop {
            let (_, tag) = rest.split_once('<')?;
            match tag.strip_prefix(name).and_then(|it| it.strip_prefix('>')) {
                Some(text) => return text.split_once('<').map(|(text, _)| text),
                None => rest = tag,
            }
        }
    }
}

/// What input begins with, once it is there as a whole, and how many bytes that has,
/// with what goes before it.
///
/// # Errors
/// What no XMPP server says; or it ends the stream.
pub(crate) fn first_element(input: &[u8]) -> Result<Option<(Element<'_>, usize)>, PeerError> {
    let mut begin = 0;
    let mut at = 0;
    let mut depth = 0_usize;
    let mut first = None;
    while let Some((tag_at, tag_end, kind)) = next_tag(input, at, depth > 0)? {
        at = tag_end;
        match kind {
            Tag::Declaration if depth == 0 => continue,
            Tag::Declaration => return Err(MALFORMED),
            Tag::Opening => depth += 1,
            Tag::Empty => {}
            Tag::Closing => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return Err(PeerError::Unexpected("the stream's end".into())),
            },
        }
        if first.is_none() {
            begin = tag_at;
        }
        let (head_at, head_end) = *first.get_or_insert((tag_at, tag_end));
        let tag = text(&input[head_at..head_end])?;
        let name = name_of(tag);
        if depth == 0 || name == STREAM {
            let text = text(&input[begin..at])?;
            return Ok(Some((Element { name, text, tag }, at)));
        }
    }
    match input.len() {
        0..MESSAGE_MAX_BYTES => Ok(None),
        _ => Err(PeerError::TooLong {
            what: "an element",
            max_bytes: MESSAGE_MAX_BYTES,
        }),
    }
}

/// Where the next tag begins and ends. Outside of elements only white space goes before.
fn next_tag(
    input: &[u8],
    from: usize,
    is_inside: bool,
) -> Result<Option<(usize, usize, Tag)>, PeerError> {
    let Some(skip) = input[from..].iter().position(|byte| *byte == b'<') else {
        let rest = &input[from..];
        return match is_inside || rest.iter().all(u8::is_ascii_whitespace) {
            true => Ok(None),
            false => Err(MALFORMED),
        };
    };
    let begin = from + skip;
    if !is_inside && !input[from..begin].iter().all(u8::is_ascii_whitespace) {
        return Err(MALFORMED);
    }
    let mut quote = None;
    for (at, byte) in input.iter().enumerate().skip(begin + 1) {
        match (quote, *byte) {
            (Some(open), byte) if open == byte => quote = None,
            (None, b'\'' | b'"') => quote = Some(*byte),
            (None, b'>') => {
                let kind = match (input[begin + 1], input[at - 1]) {
                    (b'/', _) => Tag::Closing,
                    (b'?', b'?') => Tag::Declaration,
                    (b'?' | b'!' | b'>', _) => return Err(MALFORMED),
                    (_, b'/') => Tag::Empty,
                    _ => Tag::Opening,
                };
                return Ok(Some((begin, at + 1, kind)));
            }
            (None, b'<') => return Err(MALFORMED),
            _ => {}
        }
    }
    Ok(None)
}

fn name_of(tag: &str) -> &str {
    let inner = tag.trim_start_matches('<');
    let is_end = |it: char| it.is_ascii_whitespace() || matches!(it, '/' | '>');
    inner.split(is_end).next().unwrap_or_default()
}

fn text(bytes: &[u8]) -> Result<&str, PeerError> {
    str::from_utf8(bytes).map_err(|_| MALFORMED)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_element_is_cut_out_with_all_that_is_in_it() {
        let bytes = b" \n<?xml version='1.0'?><a x='>' y=\"'\"><b/><c>t<d></d></c></a><b/>";
        let (element, used) = first_element(bytes).unwrap().unwrap();
        assert_eq!((element.name, &bytes[used..]), ("a", &b"<b/>"[..]));
        assert_eq!(element.attribute("x"), Some(">"));
        assert_eq!(element.attribute("y"), Some("'"));
        assert_eq!(element.attribute("z"), None);
        assert_eq!(element.text_of("c"), Some("t"));
        assert_eq!(element.text_of("b"), None);
        for at in 0..used {
            assert_eq!(first_element(&bytes[..at]), Ok(None), "cut at {at}");
        }
    }

    #[test]
    fn what_a_server_may_not_say_has_a_name() {
        for (bytes, name) in [
            (&b"</stream:stream>"[..], "the stream's end"),
            (b"<!DOCTYPE a>", "XML is malformed"),
            (b"<a><!-- b --></a>", "XML is malformed"),
            (b"<a><?b?></a>", "XML is malformed"),
            (b"<a <b>", "XML is malformed"),
            (b"word<a/>", "XML is malformed"),
            (b"word", "XML is malformed"),
            (b"<a>\xff</a>", "XML is malformed"),
            (&[b"<a>".as_slice(), &[b'x'; 128 * 1024]].concat(), "131072"),
        ] {
            let told = first_element(bytes).unwrap_err().to_string();
            assert!(told.contains(name), "{told}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_do_any_harm(bytes in "(</|<a|<|>|/>|a='|'|=|body>|.){0,40}") {
            if let Ok(Some((element, used))) = first_element(bytes.as_bytes()) {
                prop_assert!(used <= bytes.len());
                element.attribute("a");
                element.text_of("body");
            }
        }
    }
}
