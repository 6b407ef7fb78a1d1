//! Requests in a database's write-ahead log, read without the database.
//!
//! From 2026.9 OpenClaw keeps requests in a table of `state/openclaw.sqlite`. To open that here would mean to share memory
//! with whoever the harness runs, who could end this process by truncating the file. The log is an ordinary file, to
//! which every change is appended as a whole page, so it is read as one:
//!
//! ```text
//! header (32) │ frame header (24) │ page │ frame header │ page │ …
//!   salts ────┴── salts again: a frame of this log, not of one before it
//! ```
//!
//! A page that is a leaf of a table holds rows, each a record of columns. Requests are the records that look like one:
//! seventeen columns in the order of the table, ids, keys and lists as the harness writes them. Other pages say nothing.
//! The format is that of <https://www.sqlite.org/fileformat2.html>, sections 1.5, 1.6, 2.1 and 4.1.
//!
//! What is read here is a hint: it may be torn, made up, or old, since a page that the table gives back is not written
//! again. A request that it hides is found by the next list, and one that is gone cannot be approved.

use std::collections::BTreeMap;
use std::io::{Read, Seek, SeekFrom};

use serde_json::Value;

use crate::request::{Listing, Request};

/// How far a log was read, and what is in it.
#[derive(Debug, Default)]
pub(crate) struct Log {
    header: Option<Header>,
    offset: u64,
    /// Requests by the page that holds them, as of that page's latest image.
    pages: BTreeMap<u32, Vec<Request>>,
}

/// What cannot be read.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum LookError {
    /// No log as we know it.
    Unreadable,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Header {
    page_bytes: usize,
    salts: [u8; 8],
}

/// What a record holds.
#[derive(Debug)]
enum Column<'a> {
    Null,
    Number(u64),
    Text(&'a str),
}

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// `0x377f0682` or, with checksums in the other byte order, `0x377f0683`.
const MAGIC: [u8; 3] = [0x37, 0x7f, 0x06];
/// A leaf of a table.
const LEAF: u8 = 0x0d;
/// Columns of the table of requests, from 2026.9.6:
/// id, device, key, name, platform, family, client, mode, origin, role, roles, scopes, address, silent, repair, ts, refreshed.
const COLUMNS: usize = 17;
/// In one look; the harness writes its log anew after some 4 MB.
const MOST_BYTES: u64 = 64 << 20;
/// Pages that hold requests; one holds about ten.
const MOST_PAGES: usize = 64;

impl Log {
    /// The requests in the log. Frames that were read before are not read again, unless the log began anew.
    ///
    /// # Errors
    /// It is no log. One that is empty, or ends in the middle of a frame, is.
    pub(crate) fn look(
        &mut self,
        file: &mut (impl Read + Seek),
    ) -> Result<Vec<Request>, LookError> {
        let Some(header) = Header::read(file)? else {
            return Ok(self.requests());
        };
        if self.header != Some(header) {
            *self = Self {
                header: Some(header),
                offset: HEADER_BYTES as u64,
                pages: BTreeMap::new(),
            };
        }
        let from = SeekFrom::Start(self.offset);
        file.seek(from).map_err(|_| LookError::Unreadable)?;
        let mut frames = file.take(MOST_BYTES);
        let mut frame = vec![0; FRAME_HEADER_BYTES + header.page_bytes];
        while frames.read_exact(&mut frame).is_ok() && frame[8..16] == header.salts {
            self.offset += frame.len() as u64;
            let number = u32::from_be_bytes([frame[0], frame[1], frame[2], frame[3]]);
            self.take(number, rows(&frame[FRAME_HEADER_BYTES..]));
        }
        Ok(self.requests())
    }

    fn take(&mut self, page: u32, rows: Vec<Request>) {
        if rows.is_empty() {
            self.pages.remove(&page);
        } else if self.pages.len() < MOST_PAGES || self.pages.contains_key(&page) {
            self.pages.insert(page, rows);
        }
    }

    fn requests(&self) -> Vec<Request> {
        let rows = self.pages.values().flatten();
        rows.take(Listing::MOST).cloned().collect()
    }
}

impl Header {
    /// The header, if the log has one yet.
    fn read(file: &mut (impl Read + Seek)) -> Result<Option<Self>, LookError> {
        let unreadable = |_| LookError::Unreadable;
        file.seek(SeekFrom::Start(0)).map_err(unreadable)?;
        let mut header = Vec::with_capacity(HEADER_BYTES);
        let mut start = file.take(HEADER_BYTES as u64);
        start.read_to_end(&mut header).map_err(unreadable)?;
        if header.len() < HEADER_BYTES {
            return Ok(None);
        }
        let page_bytes =
            usize::from_be_bytes([0, 0, 0, 0, header[8], header[9], header[10], header[11]]);
        let known = header.starts_with(&MAGIC)
            && page_bytes.is_power_of_two()
            && (512..=65536).contains(&page_bytes);
        let salts = header[16..24]
            .try_into()
            .map_err(|_| LookError::Unreadable)?;
        known
            .then_some(Some(Self { page_bytes, salts }))
            .ok_or(LookError::Unreadable)
    }
}

/// The requests on a page: none, unless it is a leaf of their table.
fn rows(page: &[u8]) -> Vec<Request> {
    if page.first() != Some(&LEAF) {
        return Vec::new();
    }
    let short = |at: usize| {
        let bytes = page.get(at..at + 2)?;
        Some(usize::from(u16::from_be_bytes([bytes[0], bytes[1]])))
    };
    let count = short(3).unwrap_or(0);
    let cells = (0..count).map_while(|cell| short(8 + 2 * cell));
    cells.filter_map(|at| request(page.get(at..)?)).collect()
}

/// A row: the length of its record, its number, its record.
fn request(cell: &[u8]) -> Option<Request> {
    let (length, cell) = varint(cell)?;
    let (_number, cell) = varint(cell)?;
    // A record that is too long for its page continues elsewhere; no request is.
    let columns = columns(cell.get(..usize::try_from(length).ok()?)?)?;
    Request::of(&entry(&columns)?)
}

fn columns(record: &[u8]) -> Option<Vec<Column<'_>>> {
    let (header_bytes, after) = varint(record)?;
    let header_bytes = usize::try_from(header_bytes).ok()?;
    let mut types = after.get(..header_bytes.checked_sub(record.len() - after.len())?)?;
    let mut values = record.get(header_bytes..)?;
    let mut columns = Vec::with_capacity(COLUMNS);
    while !types.is_empty() {
        let (kind, rest) = varint(types)?;
        types = rest;
        let (column, rest) = column(kind, values)?;
        values = rest;
        columns.push(column);
        if columns.len() > COLUMNS {
            return None;
        }
    }
    (columns.len() == COLUMNS).then_some(columns)
}

/// A value by its type; requests hold no fractions and no bytes.
fn column(kind: u64, values: &[u8]) -> Option<(Column<'_>, &[u8])> {
    let bytes = match kind {
        0 => return Some((Column::Null, values)),
        8 => return Some((Column::Number(0), values)),
        9 => return Some((Column::Number(1), values)),
        1..=4 => kind,
        5 => 6,
        6 => 8,
        _ if kind >= 13 && kind % 2 == 1 => (kind - 13) / 2,
        _ => return None,
    };
    let (value, rest) = values.split_at_checked(usize::try_from(bytes).ok()?)?;
    if kind >= 13 {
        return Some((Column::Text(str::from_utf8(value).ok()?), rest));
    }
    let number = value
        .iter()
        .fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    Some((Column::Number(number), rest))
}

/// The row as the harness would print it, if every column is as the harness writes it.
fn entry(columns: &[Column<'_>]) -> Option<Value> {
    let text = |at: usize| match columns[at] {
        Column::Text(text) => Some(Value::from(text)),
        Column::Null => Some(Value::Null),
        Column::Number(_) => None,
    };
    let list = |at: usize| match columns[at] {
        Column::Text(text) => {
            let value: Value = serde_json::from_str(text).ok()?;
            value.is_array().then_some(value)
        }
        Column::Null => Some(Value::Null),
        Column::Number(_) => None,
    };
    let number = |at: usize| match columns[at] {
        Column::Number(number) => Some(number),
        Column::Null | Column::Text(_) => None,
    };
    let hex = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    match (&columns[0], &columns[1], &columns[2]) {
        (Column::Text(_), Column::Text(device), Column::Text(key))
            if hex(device) && key.len() == 43 => {}
        _ => return None,
    }
    Some(serde_json::json!({
        "requestId": text(0)?,
        "deviceId": text(1)?,
        "publicKey": text(2)?,
        "clientId": text(6)?,
        "clientMode": text(7)?,
        "role": text(9)?,
        "roles": list(10)?,
        "scopes": list(11)?,
        "silent": number(13).unwrap_or(0) == 1,
        "ts": number(15)?,
    }))
}

/// A number of up to nine bytes, seven bits each but for the last.
fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut number = 0;
    for (at, byte) in bytes.iter().take(9).enumerate() {
        if at == 8 {
            return Some((number << 8 | u64::from(*byte), &bytes[9..]));
        }
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            return Some((number, &bytes[at + 1..]));
        }
    }
    None
}

#[cfg(test)]
mod tests;
