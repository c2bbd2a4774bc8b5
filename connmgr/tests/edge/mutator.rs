//! Makes bad input of good one, reproducibly: the same seed gives the same bytes.
//!
//! [`Mutator::bytes`] knows nothing of what it spoils. [`Mutator::packet`] knows tnetstrings, so that what
//! it makes is read far enough to be wrong in its meaning: fields swapped, repeated and left out, values
//! of other types, and numbers where they hurt. Half of its packets are spoilt as bytes nevertheless.

/// Numbers in a fixed sequence (SplitMix64).
#[derive(Debug)]
pub struct Mutator(u64);

/// Values that are wrong almost anywhere.
const VALUES: [&[u8]; 20] = [
    b"0:~",
    b"0:,",
    b"0:]",
    b"0:}",
    b"1:0#",
    b"2:-1#",
    b"10:4294967296#",
    b"20:18446744073709551616#",
    b"19:9223372036854775807#",
    b"3:1.5^",
    b"4:true!",
    b"5:maybe!",
    b"5:0-0-0,",
    b"8:0-0-1\x00\r\n,",
    b"4:a b\xff,",
    b"8:5:0-0-1,]",
    b"12:9:999999999,]",
    b"27:24:2:id,5:0-0-1,3:seq,1:9#}]",
    b"12:9:6:3:0:]]]]",
    b"13:4:type,4:data,}",
];

impl Mutator {
    pub fn new(seed: u64) -> Mutator {
        Mutator(seed)
    }

    /// Any number below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % end.max(1) as u64) as usize
    }

    pub fn one_of<'t, T>(&mut self, of: &'t [T]) -> &'t T {
        &of[self.below(of.len())]
    }

    /// Bytes that differ in one place or in a few.
    pub fn bytes(&mut self, good: &[u8]) -> Vec<u8> {
        let mut bytes = good.to_vec();
        for _ in 0..=self.below(3) {
            self.spoil(&mut bytes);
        }
        bytes
    }

    fn spoil(&mut self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let at = self.below(bytes.len());
        let end = at + self.below((bytes.len() - at).min(16) + 1);
        match self.below(8) {
            0 => bytes[at] ^= 1 << self.below(8),
            1 => bytes[at] = self.below(256) as u8,
            2 => bytes.truncate(at),
            3 => bytes.insert(at, *self.one_of(b"\0\r\n :,;0-9\x7f\xff")),
            4 => drop(bytes.drain(at..end)),
            5 => {
                let part = bytes[at..end].to_vec();
                let to = self.below(bytes.len());
                bytes.splice(to..to, part);
            }
            6 => {
                let to = self.below(bytes.len());
                bytes.swap(at, to);
            }
            // The lengths of tnetstrings and of bodies are digits.
            _ => {
                if let Some(digit) = bytes[at..].iter_mut().find(|byte| byte.is_ascii_digit()) {
                    *digit = b'0' + self.below(10) as u8;
                }
            }
        }
    }

    /// A packet, and of two halves one: spoilt as bytes, or in its fields.
    pub fn packet(&mut self, good: &[u8]) -> Vec<u8> {
        if self.below(2) == 0 {
            return self.bytes(good);
        }
        let mut fields = values(good.strip_prefix(b"T").map(inside).unwrap_or_default());
        for _ in 0..=self.below(3) {
            self.spoil_fields(&mut fields);
        }
        let map = fields.concat();
        [format!("T{}:", map.len()).as_bytes(), &map, b"}"].concat()
    }

    /// Spoils what are keys and values in turn.
    fn spoil_fields(&mut self, fields: &mut Vec<Vec<u8>>) {
        let pairs = fields.len() / 2;
        if pairs == 0 {
            return;
        }
        let (one, other) = (2 * self.below(pairs), 2 * self.below(pairs));
        match self.below(6) {
            0 => fields.swap(one + 1, other + 1),
            1 => fields.swap(one, other),
            2 => drop(fields.drain(one..one + 2)),
            3 => {
                let twice = [fields[one].clone(), fields[other + 1].clone()];
                fields.extend(twice);
            }
            4 => fields[one + 1] = self.one_of(&VALUES).to_vec(),
            _ => drop(fields.remove(one)),
        }
    }
}

/// What a tnetstring that is right holds.
fn inside(value: &[u8]) -> &[u8] {
    let colon = value.iter().position(|&byte| byte == b':').unwrap();
    &value[colon + 1..value.len() - 1]
}

/// Cuts tnetstrings that stand behind each other, and are right, apart.
fn values(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut values = Vec::new();
    while let Some(colon) = bytes.iter().position(|&byte| byte == b':') {
        let length: usize = std::str::from_utf8(&bytes[..colon]).unwrap().parse().unwrap();
        let (value, rest) = bytes.split_at(colon + length + 2);
        values.push(value.to_vec());
        bytes = rest;
    }
    values
}
