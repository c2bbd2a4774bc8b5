//! Tnetstrings (tnetstrings.info): `<length>:<data><tag>`, the encoding of every ZHTTP packet.
//!
//! Reading borrows: a [`Value`] points into the packet, lists and maps are walked lazily, and
//! nothing is allocated. A malformed inner value is therefore found when it is reached, never by a
//! panic. There is no recursion, so no packet can exhaust the stack. Writing appends to a
//! `Vec<u8>`; the length of a list or map is put in front of it once it is known.
//!
//! A general serialisation crate was rejected: the codec is on the path of every byte that the
//! edge moves, and it is small.

/// The longest length prefix that is read, in digits. Nine digits reach almost 1 GB, above any
/// packet that the sockets let through.
const LENGTH_DIGITS_MAX: usize = 9;

/// One value. Byte strings, lists and maps borrow from the input.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    /// `,` a byte string.
    Bytes(&'a [u8]),
    /// `#` an integer.
    Int(i64),
    /// `^` a floating-point number, kept as its text: ZHTTP has no field of this type.
    Float(&'a [u8]),
    /// `!` `true` or `false`.
    Bool(bool),
    /// `~` nothing.
    Null,
    /// `]` a list.
    List(List<'a>),
    /// `}` a map.
    Map(Map<'a>),
}

/// What is wrong with an input that is no tnetstring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TnetError {
    /// The input ends inside a value.
    #[error("tnetstring cut short")]
    Short,
    /// The length is missing, has a leading zero, is not decimal, or is too long.
    #[error("tnetstring with a bad length")]
    Length,
    /// The tag after the data is none of `, # ^ ! ~ ] }`.
    #[error("tnetstring with an unknown type")]
    Tag,
    /// An integer, a boolean or a null whose data is not one.
    #[error("tnetstring whose data does not fit its type")]
    Data,
    /// A map with a key that is no byte string, or without the value of its last key.
    #[error("tnetstring map with a bad key")]
    Key,
}

/// Reads the first value of `input` and says what follows it.
pub fn read(input: &[u8]) -> Result<(Value<'_>, &[u8]), TnetError> {
    let (length, digits) = read_length(input)?;
    let start = digits + 1;
    let end = start + length;
    let tag = *input.get(end).ok_or(TnetError::Short)?;
    let data = &input[start..end];
    let value = match tag {
        b',' => Value::Bytes(data),
        b'#' => Value::Int(integer(data).ok_or(TnetError::Data)?),
        b'^' => Value::Float(data),
        b'!' => match data {
            b"true" => Value::Bool(true),
            b"false" => Value::Bool(false),
            _ => return Err(TnetError::Data),
        },
        b'~' if data.is_empty() => Value::Null,
        b'~' => return Err(TnetError::Data),
        b']' => Value::List(List(data)),
        b'}' => Value::Map(Map(data)),
        _ => return Err(TnetError::Tag),
    };
    Ok((value, &input[end + 1..]))
}

/// The length at the start of `input`, and how many digits it has; a colon stands behind them.
fn read_length(input: &[u8]) -> Result<(usize, usize), TnetError> {
    let mut length = 0usize;
    for (digits, &byte) in input.iter().take(LENGTH_DIGITS_MAX + 1).enumerate() {
        match byte {
            b'0'..=b'9' if digits < LENGTH_DIGITS_MAX => {
                if digits > 0 && length == 0 {
                    return Err(TnetError::Length);
                }
                length = length * 10 + usize::from(byte - b'0');
            }
            b':' if digits > 0 => return Ok((length, digits)),
            _ => return Err(TnetError::Length),
        }
    }
    Err(TnetError::Short)
}

fn integer(data: &[u8]) -> Option<i64> {
    std::str::from_utf8(data).ok()?.parse().ok()
}

/// The values of a list, walked by iterating.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct List<'a>(&'a [u8]);

impl<'a> Iterator for List<'a> {
    type Item = Result<Value<'a>, TnetError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        // After an error there is no telling where the next value begins.
        let rest = std::mem::take(&mut self.0);
        Some(read(rest).map(|(value, rest)| {
            self.0 = rest;
            value
        }))
    }
}

/// The entries of a map in the order of the wire, walked by iterating.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Map<'a>(&'a [u8]);

impl<'a> Iterator for Map<'a> {
    type Item = Result<(&'a [u8], Value<'a>), TnetError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let rest = std::mem::take(&mut self.0);
        Some(read_entry(rest).map(|(entry, rest)| {
            self.0 = rest;
            entry
        }))
    }
}

type Entry<'a> = (&'a [u8], Value<'a>);

fn read_entry(input: &[u8]) -> Result<(Entry<'_>, &[u8]), TnetError> {
    let (Value::Bytes(key), rest) = read(input)? else { return Err(TnetError::Key) };
    if rest.is_empty() {
        return Err(TnetError::Key);
    }
    let (value, rest) = read(rest)?;
    Ok(((key, value), rest))
}

/// Appends values to a buffer.
#[derive(Debug)]
pub struct Writer<'b> {
    out: &'b mut Vec<u8>,
}

impl<'b> Writer<'b> {
    /// A writer that appends to `out`.
    pub fn new(out: &'b mut Vec<u8>) -> Self {
        Writer { out }
    }

    /// Writes a byte string.
    pub fn bytes(&mut self, data: &[u8]) {
        self.scalar(data, b',');
    }

    /// Writes a byte string that is put together of these parts.
    pub fn bytes_of(&mut self, parts: &[&[u8]]) {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        self.out.extend_from_slice(itoa::Buffer::new().format(len).as_bytes());
        self.out.push(b':');
        parts.iter().for_each(|part| self.out.extend_from_slice(part));
        self.out.push(b',');
    }

    /// Writes an integer.
    pub fn int(&mut self, value: i64) {
        self.scalar(itoa::Buffer::new().format(value).as_bytes(), b'#');
    }

    /// Writes a boolean.
    pub fn bool(&mut self, value: bool) {
        self.scalar(if value { b"true" } else { b"false" }, b'!');
    }

    /// Writes a list whose values `fill` writes.
    pub fn list(&mut self, fill: impl FnOnce(&mut Writer<'_>)) {
        self.nested(b']', fill);
    }

    /// Writes a map whose keys and values `fill` writes, each key before its value.
    pub fn map(&mut self, fill: impl FnOnce(&mut Writer<'_>)) {
        self.nested(b'}', fill);
    }

    /// Writes a key and the map that `fill` writes, or neither if it writes nothing.
    pub(crate) fn optional_map(&mut self, key: &[u8], fill: impl FnOnce(&mut Writer<'_>)) {
        let before = self.out.len();
        self.bytes(key);
        let start = self.out.len();
        self.map(fill);
        if self.out[start..] == *b"0:}" {
            self.out.truncate(before);
        }
    }

    fn scalar(&mut self, data: &[u8], tag: u8) {
        self.out.extend_from_slice(itoa::Buffer::new().format(data.len()).as_bytes());
        self.out.push(b':');
        self.out.extend_from_slice(data);
        self.out.push(tag);
    }

    /// The length is known only after the content, which is then moved once to make room for it.
    fn nested(&mut self, tag: u8, fill: impl FnOnce(&mut Writer<'_>)) {
        let start = self.out.len();
        fill(&mut Writer { out: self.out });
        let end = self.out.len();
        let mut digits = itoa::Buffer::new();
        let prefix = digits.format(end - start).as_bytes();
        let shift = prefix.len() + 1;
        self.out.resize(end + shift, 0);
        self.out.copy_within(start..end, start + shift);
        self.out[start..start + prefix.len()].copy_from_slice(prefix);
        self.out[start + prefix.len()] = b':';
        self.out.push(tag);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use proptest::prelude::*;

    fn whole(input: &[u8]) -> Result<Value<'_>, TnetError> {
        read(input).map(|(value, rest)| {
            assert_eq!(rest, b"");
            value
        })
    }

    #[test]
    fn scalars() {
        assert_eq!(whole(b"5:hello,"), Ok(Value::Bytes(b"hello")));
        assert_eq!(whole(b"0:,"), Ok(Value::Bytes(b"")));
        assert_eq!(whole(b"3:-12#"), Ok(Value::Int(-12)));
        assert_eq!(whole(b"4:true!"), Ok(Value::Bool(true)));
        assert_eq!(whole(b"5:false!"), Ok(Value::Bool(false)));
        assert_eq!(whole(b"0:~"), Ok(Value::Null));
        assert_eq!(whole(b"3:1.5^"), Ok(Value::Float(b"1.5")));
        assert_eq!(read(b"1:a,rest"), Ok((Value::Bytes(b"a"), &b"rest"[..])));
    }

    #[test]
    fn what_is_malformed_says_how() {
        let cases: [(&[u8], TnetError); 16] = [
            (b"", TnetError::Short),
            (b"5", TnetError::Short),
            (b"5:hell", TnetError::Short),
            (b"5:hello", TnetError::Short),
            (b":,", TnetError::Length),
            (b"05:hello,", TnetError::Length),
            (b"00:,", TnetError::Length),
            (b"-1:,", TnetError::Length),
            (b"5 :hello,", TnetError::Length),
            (b"9999999999:x,", TnetError::Length),
            (b"1:a?", TnetError::Tag),
            (b"1:a#", TnetError::Data),
            (b"20:99999999999999999999#", TnetError::Data),
            (b"3:yes!", TnetError::Data),
            (b"1:x~", TnetError::Data),
            (b"0:#", TnetError::Data),
        ];
        for (input, error) in cases {
            assert_eq!(read(input).err(), Some(error), "{}", String::from_utf8_lossy(input));
        }
    }

    #[test]
    fn lists_and_maps_stop_at_the_first_error() {
        let Ok(Value::List(list)) = whole(b"8:1:a,1:b?]") else { panic!("a list") };
        assert_eq!(list.collect::<Vec<_>>(), [Ok(Value::Bytes(b"a")), Err(TnetError::Tag)]);
        let Ok(Value::Map(map)) = whole(b"4:1:a,}") else { panic!("a map") };
        assert_eq!(map.collect::<Vec<_>>(), [Err(TnetError::Key)]);
        let Ok(Value::Map(map)) = whole(b"8:1:1#1:b,}") else { panic!("a map") };
        assert_eq!(map.collect::<Vec<_>>(), [Err(TnetError::Key)]);
    }

    #[derive(Clone, Debug, PartialEq)]
    enum Tree {
        Bytes(Vec<u8>),
        Int(i64),
        Bool(bool),
        List(Vec<Tree>),
        Map(Vec<(Vec<u8>, Tree)>),
    }

    fn write(tree: &Tree, writer: &mut Writer<'_>) {
        match tree {
            Tree::Bytes(data) => writer.bytes(data),
            Tree::Int(value) => writer.int(*value),
            Tree::Bool(value) => writer.bool(*value),
            Tree::List(items) => {
                writer.list(|writer| items.iter().for_each(|item| write(item, writer)));
            }
            Tree::Map(entries) => writer.map(|writer| {
                for (key, value) in entries {
                    writer.bytes(key);
                    write(value, writer);
                }
            }),
        }
    }

    fn build(value: Value<'_>) -> Tree {
        match value {
            Value::Bytes(data) => Tree::Bytes(data.to_vec()),
            Value::Int(value) => Tree::Int(value),
            Value::Bool(value) => Tree::Bool(value),
            Value::List(list) => Tree::List(list.map(|item| build(item.unwrap())).collect()),
            Value::Map(map) => {
                let entry = |entry: Result<Entry<'_>, _>| {
                    let (key, value) = entry.unwrap();
                    (key.to_vec(), build(value))
                };
                Tree::Map(map.map(entry).collect())
            }
            Value::Float(_) | Value::Null => unreachable!("never written"),
        }
    }

    fn trees() -> impl Strategy<Value = Tree> {
        let leaf = prop_oneof![
            any::<Vec<u8>>().prop_map(Tree::Bytes),
            any::<i64>().prop_map(Tree::Int),
            any::<bool>().prop_map(Tree::Bool),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Tree::List),
                prop::collection::vec((any::<Vec<u8>>(), inner), 0..8).prop_map(Tree::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(tree in trees()) {
            let mut out = b"before".to_vec();
            write(&tree, &mut Writer::new(&mut out));
            let (value, rest) = read(&out[6..]).unwrap();
            prop_assert_eq!(rest, b"");
            prop_assert_eq!(build(value), tree);
        }

        #[test]
        fn no_prefix_of_a_value_is_one(tree in trees(), cut in any::<prop::sample::Index>()) {
            let mut out = Vec::new();
            write(&tree, &mut Writer::new(&mut out));
            prop_assert!(read(&out[..cut.index(out.len())]).is_err());
        }
    }
}
