//! Inputs to begin with: the examples of SPEC.md, and scripts that get somewhere.

use crate::stream::REQUEST;

const SPEC: &str = include_str!("../../../protocol/SPEC.md");

/// The bytes of all examples whose first line has this word.
fn examples(word: &str) -> Vec<Vec<u8>> {
    let mut examples = Vec::new();
    let mut lines = SPEC.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else {
            continue;
        };
        let body = lines.by_ref().take_while(|line| *line != "```");
        let hex: Vec<&str> = body
            .map(|line| line.split('#').next().unwrap_or_default())
            .collect();
        let is_meant = info.starts_with("hex ") && info[4..].starts_with(word);
        if is_meant {
            let digits = hex.iter().flat_map(|line| line.split_whitespace());
            examples.push(
                digits
                    .filter_map(|it| u8::from_str_radix(it, 16).ok())
                    .collect(),
            );
        }
    }
    examples
}

/// Datagrams, handshake packets filled up to what they must have.
pub(crate) fn datagrams() -> Vec<Vec<u8>> {
    let mut all = examples("udp=");
    let long = all
        .iter()
        .filter(|it| it.first().is_some_and(|first| *first >= 0x80));
    let long: Vec<_> = long
        .map(|it| {
            let mut datagram = it.clone();
            datagram.resize(1200, 0);
            datagram
        })
        .collect();
    all.extend(long);
    all
}

/// Payloads of sealed packets, each as a script of [`crate::session`].
pub(crate) fn sessions() -> Vec<Vec<u8>> {
    let payloads = examples("frames=");
    let receive = |payload: &Vec<u8>| {
        let bytes = u8::try_from(payload.len()).unwrap_or(u8::MAX);
        [&[0, 1, bytes], &payload[..usize::from(bytes)]].concat()
    };
    let mut all: Vec<_> = payloads.iter().map(receive).collect();
    let all_at_once = all.concat();
    let sends = [1, 0, 2, 3, 1, 0x40, 9, 1, 0x80, 1, 2, 0, 200, 3];
    all.push([&sends[..], &all_at_once].concat());
    all.push(all_at_once);
    all
}

/// Frames of plain TCP, cut up by their first byte.
pub(crate) fn streams() -> Vec<Vec<u8>> {
    let mut all = examples("name=");
    all.extend(examples("sealed="));
    all.into_iter()
        .map(|frame| [&[7][..], &frame].concat())
        .collect()
}

/// WebSocket frames and handshakes, with how they are to be taken before them.
pub(crate) fn websockets() -> Vec<Vec<u8>> {
    let mut all = vec![[&[9, 0][..], REQUEST].concat()];
    for frame in examples("ws=") {
        all.push([&[9, 0][..], REQUEST, &frame].concat());
        all.push([&[3, 1][..], &frame].concat());
    }
    all.push(vec![
        5, 2, 0x82, 3, 1, 2, 3, 0x89, 0, 0x01, 1, 4, 0x80, 2, 5, 6, 0x88, 0,
    ]);
    all
}

/// Openings and frames, and scripts of damage.
pub(crate) fn sealed_streams() -> Vec<Vec<u8>> {
    let raw = examples("sealed=").into_iter();
    let mut all: Vec<_> = raw.map(|bytes| [&[0, 5][..], &bytes].concat()).collect();
    all.push([&[0, 5][..], &examples("sealed=").concat()].concat());
    all.push(vec![1, 9, 3, 10, 20, 30, 0, 0]);
    all.push(vec![1, 9, 3, 10, 20, 30, 1, 0, 7, 4, 1]);
    all.push(vec![2, 9, 4, 1, 2, 3, 4, 0, 0]);
    all
}

/// Every operation, in several orders.
pub(crate) fn scripts() -> Vec<Vec<u8>> {
    let mut all: Vec<Vec<u8>> = (0..8).map(|first| vec![first]).collect();
    all.push((0..64).collect());
    all.push((0..64).rev().collect());
    // Send, transmit and deliver, over and over.
    all.push([0, 0, 9, 2, 4, 3, 5, 1, 0x40, 200, 3, 5, 2, 4, 10, 9].repeat(12));
    all.push([0, 0x40, 250, 2, 6, 10, 40, 2, 4, 4, 3, 7, 5, 12, 2, 4, 3, 5].repeat(9));
    all
}
