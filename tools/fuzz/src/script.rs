//! An input, read as a script.

/// What is left of an input. Behind its end come zeros.
#[derive(Debug)]
pub(crate) struct Script<'a>(&'a [u8]);

// === impl Script ===

impl<'a> Script<'a> {
    pub(crate) const fn new(input: &'a [u8]) -> Self {
        Self(input)
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    pub(crate) fn short(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// At most so many bytes.
    pub(crate) fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        bytes
    }

    pub(crate) fn rest(&mut self) -> &'a [u8] {
        self.bytes(usize::MAX)
    }

    /// Damages these bytes in up to three places, or leaves them.
    pub(crate) fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..self.byte() % 4 {
            let at = usize::from(self.short()) % bytes.len().max(1);
            match self.byte() % 5 {
                0 => bytes.truncate(at),
                1 => {
                    bytes.insert(at, self.byte());
                }
                2 if !bytes.is_empty() => {
                    bytes.remove(at);
                }
                3 => bytes.extend(self.bytes(9)),
                _ => {
                    let change = self.byte();
                    bytes
                        .iter_mut()
                        .skip(at)
                        .take(1)
                        .for_each(|byte| *byte ^= change);
                }
            }
        }
    }
}
