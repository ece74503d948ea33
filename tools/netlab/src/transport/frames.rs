//! Messages in a stream of bytes: each behind its length, four bytes, big-endian.

const LENGTH_BYTES: usize = 4;

/// Bytes that came and are no whole message yet.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    bytes: Vec<u8>,
}

/// Puts a message behind its length.
pub(crate) fn enter(message: &[u8], into: &mut Vec<u8>) {
    into.extend_from_slice(&(message.len() as u32).to_be_bytes());
    into.extend_from_slice(message);
}

// === impl Frames ===

impl Frames {
    /// Takes in some bytes and hands over each message that is whole with them.
    pub(crate) fn receive(&mut self, bytes: &[u8], mut message: impl FnMut(&[u8])) {
        self.bytes.extend_from_slice(bytes);
        let mut rest = self.bytes.as_slice();
        while let Some((length, behind)) = rest.split_at_checked(LENGTH_BYTES) {
            let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]);
            let Some((whole, behind)) = behind.split_at_checked(length as usize) else {
                break;
            };
            message(whole);
            rest = behind;
        }
        let done = self.bytes.len() - rest.len();
        self.bytes.drain(..done);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_whole_however_the_bytes_are_cut() {
        let messages: Vec<Vec<u8>> = (0..20).map(|number| vec![number; number.into()]).collect();
        let mut stream = Vec::new();
        for message in &messages {
            enter(message, &mut stream);
        }
        for cut in 1..50 {
            let (mut frames, mut got) = (Frames::default(), Vec::new());
            for piece in stream.chunks(cut) {
                frames.receive(piece, |message| got.push(message.to_vec()));
            }
            assert_eq!(got, messages);
            assert_eq!(frames.bytes, b"");
        }
    }
}
