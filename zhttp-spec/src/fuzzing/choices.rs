//! The bytes of a fuzzer, read as choices: what a target by operations is made of.
//!
//! Each choice takes as few bytes as it can, from the front, so that a change of one byte changes one choice and a
//! byte that is put in or taken out shifts those behind it, as a mutator likes it. Behind the last byte every choice
//! is the first one; a loop over operations ends with [`Choices::is_over`].

/// A reader of choices.
#[derive(Clone, Debug)]
pub struct Choices<'i> {
    input: &'i [u8],
}

impl<'i> Choices<'i> {
    /// The choices that these bytes make.
    pub const fn new(input: &'i [u8]) -> Self {
        Choices { input }
    }

    /// Whether no byte is left.
    pub const fn is_over(&self) -> bool {
        self.input.is_empty()
    }

    /// The next byte; 0 behind the last.
    pub fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.input.split_first() else { return 0 };
        self.input = rest;
        byte
    }

    /// Yes or no.
    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number from 0 to `max`, both included.
    pub fn up_to(&mut self, max: u64) -> u64 {
        let bytes = (u64::BITS - max.leading_zeros()).div_ceil(u8::BITS);
        let number = (0..bytes).fold(0, |number, _| number << 8 | u64::from(self.byte()));
        max.checked_add(1).map_or(number, |count| number % count)
    }

    /// An index below `len`, which is not 0.
    pub fn index(&mut self, len: usize) -> usize {
        self.up_to(len as u64 - 1) as usize
    }

    /// One of these, of which there is at least one.
    pub fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.index(of.len())]
    }

    /// A number of any size: small ones are as likely as large ones, and so are the largest.
    pub fn number(&mut self) -> u64 {
        let bits = u32::from(self.byte()) % (u64::BITS + 2);
        match u64::MAX.checked_shr(u64::BITS.saturating_sub(bits)) {
            None => 0,
            Some(u64::MAX) => u64::MAX - self.up_to(u8::MAX.into()),
            Some(max) => self.up_to(max),
        }
    }

    /// So many bytes at most, as they stand in the input.
    pub fn bytes(&mut self, len_max: usize) -> &'i [u8] {
        let len = self.index(len_max + 1).min(self.input.len());
        let (taken, rest) = self.input.split_at(len);
        self.input = rest;
        taken
    }

    /// What is left.
    pub const fn rest(self) -> &'i [u8] {
        self.input
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_end_with_the_first() {
        let mut choices = Choices::new(&[1, 2, 1, 0, 3, b'a', b'b', b'c', 9]);
        assert!(choices.flag());
        assert_eq!(choices.one_of(&["a", "b", "c"]), "c");
        assert_eq!(choices.up_to(1000), 256);
        assert_eq!(choices.bytes(100), b"abc");
        assert_eq!(choices.clone().rest(), [9]);
        assert_eq!(choices.number(), 0, "of nine bits, but none is left");
        assert!(choices.is_over());
        assert_eq!((choices.byte(), choices.index(7), choices.bytes(5)), (0, 0, &b""[..]));
    }

    #[test]
    fn numbers_reach_the_largest() {
        let numbers = [&[0][..], &[1, 1], &[64, 1], &[64, 0], &[65, 2], &[66]]
            .map(|bytes| Choices::new(bytes).number());
        assert_eq!(numbers, [0, 1, u64::MAX - 1, u64::MAX, u64::MAX - 2, 0]);
        assert_eq!(Choices::new(&[255; 8]).up_to(u64::MAX), u64::MAX);
        assert_eq!(Choices::new(&[7]).up_to(0), 0);
    }
}
