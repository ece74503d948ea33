//! Months of messages as files.
//!
//! An archive is gzip of JSON lines, so that `zcat` and any language can read it:
//!
//! ```text
//! {"sluice-archive":1,"month":"2026-08","databases":["db-0:3306/sluice"]}
//! {"database":0,"conversation":"…","seq":1,"server_time_ms":…,"message_id":"…","sender":"ann",
//!  "client_msg_id":"0190…","kind":0,"content_type":1,"recalled":false,"counting":1,
//!  "counting_first":1,"body":"<base64>"}
//! {"entries":1,"sha256":"<of all lines before, with their line ends>"}
//! ```
//!
//! Entries lie by database, conversation and seq. `kind`, `content_type` and
//! `body` are as in the table `message` (`content_row`), so that nothing is lost
//! on the way. A file has its name only when it is whole and synced.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use flate2::{Compression, bufread::MultiGzDecoder, write::GzEncoder};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{StoredEntry, archived_row::ArchivedRow};

const VERSION: u32 = 1;

/// A body is at most 60 KiB, four thirds of that in base64.
const LINE_MAX_BYTES: u64 = 1024 * 1024;

/// Why an archive can't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The file system says no.
    #[error("{}: {cause}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What it says.
        cause: io::Error,
    },
    /// The file is no archive, or a damaged one.
    #[error("{}: {what}", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// Where and how.
        what: String,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Head {
    #[serde(rename = "sluice-archive")]
    version: u32,
    month: String,
    databases: Vec<String>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Foot {
    entries: u64,
    sha256: String,
}

/// A line that isn't the first.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Line {
    Row(ArchivedRow),
    Foot(Foot),
}

/// Rows of one database, so far: two that are equal have had the same rows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Fingerprint {
    pub(crate) entries: u64,
    sha256: Sha256,
}

/// A file that is being written; gone again unless it is finished.
pub(crate) struct ArchiveWriter {
    path: PathBuf,
    unfinished: PathBuf,
    out: Option<GzEncoder<BufWriter<File>>>,
    all: Fingerprint,
}

/// Reads an archive, entry by entry, and checks it on the way. Who hasn't come
/// to the end without an error hasn't read what was archived.
pub struct ArchiveReader {
    path: PathBuf,
    lines: BufReader<MultiGzDecoder<BufReader<File>>>,
    head: Head,
    all: Fingerprint,
    is_over: bool,
}

// === impl Fingerprint ===

impl Fingerprint {
    pub(crate) fn add(&mut self, row: &ArchivedRow) -> io::Result<()> {
        self.add_line(&row.line()?);
        self.entries += 1;
        Ok(())
    }

    fn add_line(&mut self, line: &[u8]) {
        self.sha256.update(line);
    }

    pub(crate) fn hex(&self) -> String {
        let sum = self.sha256.clone().finalize();
        sum.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl PartialEq for Fingerprint {
    fn eq(&self, other: &Self) -> bool {
        self.entries == other.entries && self.hex() == other.hex()
    }
}

// === impl ArchiveWriter ===

impl ArchiveWriter {
    /// Begins a file beside the one that it will be.
    pub(crate) fn create(
        path: &Path,
        month: String,
        databases: Vec<String>,
    ) -> Result<Self, ArchiveError> {
        if path.exists() {
            return Err(damaged(path, "is there already"));
        }
        let mut unfinished = path.as_os_str().to_owned();
        unfinished.push(format!(".{}.unfinished", std::process::id()));
        let unfinished = PathBuf::from(unfinished);
        let file = File::create(&unfinished).map_err(|cause| io_error(&unfinished, cause))?;
        let mut writer = Self {
            path: path.to_owned(),
            unfinished,
            out: Some(GzEncoder::new(BufWriter::new(file), Compression::default())),
            all: Fingerprint::default(),
        };
        let head = Head {
            version: VERSION,
            month,
            databases,
        };
        let written = serde_json::to_vec(&head).map_err(io::Error::from);
        let written = written.and_then(|mut line| {
            line.push(b'\n');
            writer.write(&line)
        });
        written.map_err(|cause| io_error(path, cause))?;
        Ok(writer)
    }

    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        self.all.add_line(line);
        match &mut self.out {
            Some(out) => out.write_all(line),
            None => Ok(()),
        }
    }

    pub(crate) fn put(&mut self, row: &ArchivedRow) -> Result<(), ArchiveError> {
        let written = row.line().and_then(|line| self.write(&line));
        self.all.entries += 1;
        written.map_err(|cause| io_error(&self.unfinished, cause))
    }

    /// Syncs it and gives it its name. Returns how many entries it has.
    pub(crate) fn finish(mut self) -> Result<u64, ArchiveError> {
        let (entries, sha256) = (self.all.entries, self.all.hex());
        let finished = self.out.take().map_or(Ok(()), |mut out| {
            serde_json::to_writer(&mut out, &Foot { entries, sha256 })?;
            out.write_all(b"\n")?;
            let file = out.finish()?.into_inner().map_err(io::Error::from)?;
            file.sync_all()?;
            std::fs::rename(&self.unfinished, &self.path)?;
            // The name must survive a power cut as well as the content.
            let folder = self.path.parent().filter(|it| *it != Path::new(""));
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        });
        finished.map_err(|cause| io_error(&self.path, cause))?;
        Ok(entries)
    }
}

impl Drop for ArchiveWriter {
    fn drop(&mut self) {
        // Fails when it has its name already.
        let _ = std::fs::remove_file(&self.unfinished);
    }
}

// === impl ArchiveReader ===

impl ArchiveReader {
    /// Opens a file and reads its first line.
    ///
    /// # Errors
    /// [`ArchiveError`] when it can't be read or is no archive.
    pub fn open(path: &Path) -> Result<Self, ArchiveError> {
        let file = File::open(path).map_err(|cause| io_error(path, cause))?;
        let mut reader = Self {
            path: path.to_owned(),
            lines: BufReader::new(MultiGzDecoder::new(BufReader::new(file))),
            head: Head {
                version: VERSION,
                month: String::new(),
                databases: Vec::new(),
            },
            all: Fingerprint::default(),
            is_over: false,
        };
        let line = reader.read_line()?;
        reader.all.add_line(&line);
        reader.head = serde_json::from_slice(&line)
            .map_err(|error| damaged(path, &format!("is no archive: {error}")))?;
        match reader.head.version {
            VERSION => Ok(reader),
            other => Err(damaged(path, &format!("is an archive of version {other}"))),
        }
    }

    /// Which month it holds, such as `2026-08`.
    pub fn month(&self) -> &str {
        &self.head.month
    }

    /// How many databases it is of.
    pub(crate) fn databases(&self) -> usize {
        self.head.databases.len()
    }

    fn read_line(&mut self) -> Result<Vec<u8>, ArchiveError> {
        let mut line = Vec::new();
        (&mut self.lines)
            .take(LINE_MAX_BYTES)
            .read_until(b'\n', &mut line)
            .map_err(|cause| io_error(&self.path, cause))?;
        match line.last() {
            Some(b'\n') => Ok(line),
            _ => Err(damaged(&self.path, "ends in the middle")),
        }
    }

    /// The next row; `None` when all is read and found whole.
    pub(crate) fn next_row(&mut self) -> Result<Option<ArchivedRow>, ArchiveError> {
        if self.is_over {
            return Ok(None);
        }
        let line = self.read_line()?;
        let parsed = serde_json::from_slice(&line)
            .map_err(|error| damaged(&self.path, &format!("holds a strange line: {error}")))?;
        match parsed {
            Line::Row(row) => {
                self.all.add_line(&line);
                self.all.entries += 1;
                Ok(Some(row))
            }
            Line::Foot(foot) => {
                self.is_over = true;
                if foot.entries != self.all.entries || foot.sha256 != self.all.hex() {
                    return Err(damaged(&self.path, "has another checksum than its content"));
                }
                // What gzip has at its end is a part of the file, too.
                let mut beyond = [0];
                match self.lines.read(&mut beyond) {
                    Ok(0) => Ok(None),
                    Ok(_) => Err(damaged(&self.path, "goes on behind its end")),
                    Err(cause) => Err(io_error(&self.path, cause)),
                }
            }
        }
    }
}

impl Iterator for ArchiveReader {
    type Item = Result<StoredEntry, ArchiveError>;

    fn next(&mut self) -> Option<Self::Item> {
        let row = self.next_row();
        if row.is_err() {
            self.is_over = true;
        }
        let entry = row
            .transpose()?
            .and_then(|row| row.into_entry().map_err(|what| damaged(&self.path, &what)));
        Some(entry)
    }
}

impl std::fmt::Debug for ArchiveReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} of {}", self.path.display(), self.head.month)
    }
}

fn io_error(path: &Path, cause: io::Error) -> ArchiveError {
    ArchiveError::Io {
        path: path.to_owned(),
        cause,
    }
}

fn damaged(path: &Path, what: &str) -> ArchiveError {
    ArchiveError::Damaged {
        path: path.to_owned(),
        what: what.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use sluice_protocol::{ClientMsgId, ConversationId, MessageId};

    use super::*;
    use crate::Content;

    fn row(seq: u64) -> ArchivedRow {
        ArchivedRow {
            database: 0,
            conversation: ConversationId::group(MessageId(7)).to_string(),
            seq,
            server_time_ms: 1_790_000_000_000 + seq,
            message_id: u64::MAX - seq,
            sender: "ann".to_owned(),
            client_msg_id: ClientMsgId::new(1_790_000_000_000, [9; 10]).to_string(),
            kind: 0,
            content_type: 1,
            recalled: false,
            counting: seq,
            counting_first: 0,
            body: vec![0, 159, 146, seq as u8],
        }
    }

    fn archive(folder: &Path) -> PathBuf {
        let path = folder.join("month.ndjson.gz");
        let databases = vec!["here".to_owned()];
        let mut writer = ArchiveWriter::create(&path, "2026-08".to_owned(), databases).unwrap();
        for seq in 1..=3 {
            writer.put(&row(seq)).unwrap();
        }
        assert!(!path.exists(), "no name before it is whole");
        assert_eq!(writer.finish().unwrap(), 3);
        path
    }

    #[test]
    fn what_was_archived_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = archive(folder.path());
        let reader = ArchiveReader::open(&path).unwrap();
        assert_eq!((reader.month(), reader.databases()), ("2026-08", 1));
        let entries: Vec<StoredEntry> = reader.map(Result::unwrap).collect();
        assert_eq!(entries.len(), 3);
        assert_eq!(entries[2].message_id.0, u64::MAX - 3);
        let Content::Message { body, .. } = &entries[2].content else {
            panic!("{:?}", entries[2]);
        };
        assert_eq!(&body[..], [0, 159, 146, 3]);
        let again = ArchiveWriter::create(&path, String::new(), Vec::new());
        assert!(again.is_err(), "an archive is never overwritten");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_cut_or_altered_archive_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = archive(folder.path());
        let whole = std::fs::read(&path).unwrap();
        let mut text = Vec::new();
        MultiGzDecoder::new(&whole[..])
            .read_to_end(&mut text)
            .unwrap();
        let text = String::from_utf8(text).unwrap();
        let without_a_line: String = text
            .lines()
            .filter(|line| !line.contains("\"seq\":2"))
            .map(|line| format!("{line}\n"))
            .collect();
        let altered = text.replace("ann", "bob");
        let cut = text
            .lines()
            .take(3)
            .map(|line| format!("{line}\n"))
            .collect();
        for changed in [
            without_a_line,
            altered,
            cut,
            String::new(),
            "{}\n".to_owned(),
        ] {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
            gzip.write_all(changed.as_bytes()).unwrap();
            std::fs::write(&path, gzip.finish().unwrap()).unwrap();
            let read =
                ArchiveReader::open(&path).and_then(|reader| reader.collect::<Result<Vec<_>, _>>());
            assert!(read.is_err(), "{changed}");
        }
        for length in 0..whole.len() {
            std::fs::write(&path, &whole[..length]).unwrap();
            let read =
                ArchiveReader::open(&path).and_then(|reader| reader.collect::<Result<Vec<_>, _>>());
            assert!(read.is_err(), "{length} of {} bytes", whole.len());
        }
    }
}
