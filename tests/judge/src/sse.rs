//! A reader of server-sent events (WHATWG HTML §9.2), strict: a line that a Forebay edge never writes is an error.

/// One block of lines, up to its empty line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// `event:`.
    pub kind: Option<String>,
    /// `id:`.
    pub id: Option<String>,
    /// `data:`.
    pub data: Option<String>,
    /// `retry:`.
    pub retry: bool,
    /// It was a comment.
    pub comment: bool,
}

/// Cuts a stream of bytes into blocks.
#[derive(Clone, Debug, Default)]
pub struct SseReader {
    partial: Vec<u8>,
}

impl SseReader {
    /// Adds bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.partial.extend_from_slice(bytes);
    }

    /// Whether it stands behind a whole block.
    pub fn is_at_boundary(&self) -> bool {
        self.partial.is_empty()
    }

    /// The next whole block.
    ///
    /// # Errors
    ///
    /// A line that nobody should have written.
    pub fn next_block(&mut self) -> Result<Option<Block>, String> {
        let Some(end) = self.partial.windows(2).position(|pair| pair == b"\n\n") else {
            return Ok(None);
        };
        let block = {
            let text = std::str::from_utf8(&self.partial[..end]);
            parse(text.map_err(|error| error.to_string())?)?
        };
        self.partial.drain(..end + 2);
        Ok(Some(block))
    }
}

fn parse(text: &str) -> Result<Block, String> {
    let mut block = Block::default();
    for line in text.lines() {
        let twice = || Err(format!("a line that comes twice: {line}"));
        match line.split_once(": ") {
            Some(("event", kind)) if block.kind.is_none() => block.kind = Some(kind.into()),
            Some(("id", id)) if block.id.is_none() => block.id = Some(id.into()),
            Some(("data", data)) if block.data.is_none() => block.data = Some(data.into()),
            Some(("event" | "id" | "data", _)) => return twice(),
            Some(("retry", _)) => block.retry = true,
            None if line == ":" => block.comment = true,
            Some(_) | None => return Err(format!("a line that nobody wrote: {line}")),
        }
    }
    Ok(block)
}

/// The text of a field of flat JSON.
///
/// # Errors
///
/// There is none of that name.
pub fn field<'a>(json: &'a str, name: &str) -> Result<&'a str, String> {
    let missing = || format!("no {name} in {json}");
    let key = format!("\"{name}\":\"");
    let start = json.find(&key).ok_or_else(missing)? + key.len();
    let len = json[start..].find('"').ok_or_else(missing)?;
    Ok(&json[start..start + len])
}
