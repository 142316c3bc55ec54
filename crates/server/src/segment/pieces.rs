//! Files that are believed piece by piece: each stretch of 256 KiB has a CRC in the manifest, and is compared with it when
//! something in it is read for the first time. One row of a large file costs the pieces that it lies in.

use bytes::Bytes;
use parquet::errors::ParquetError;
use parquet::file::reader::{ChunkReader, Length};
use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const PIECE: usize = 256 << 10;
/// What a reader of headers reads at once.
const WINDOW: usize = 8 << 10;

/// CRCs of a file's pieces, while it is written.
#[derive(Default)]
pub(super) struct PieceCrcs {
    done: Vec<u32>,
    open: crc32fast::Hasher,
    open_bytes: usize,
}

impl PieceCrcs {
    pub(super) fn update(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(PIECE - self.open_bytes));
            self.open.update(now);
            self.open_bytes += now.len();
            if self.open_bytes == PIECE {
                self.done.push(std::mem::take(&mut self.open).finalize());
                self.open_bytes = 0;
            }
            bytes = later;
        }
    }

    pub(super) fn finish(&self) -> Vec<u32> {
        let mut all = self.done.clone();
        if self.open_bytes > 0 {
            all.push(self.open.clone().finalize());
        }
        all
    }
}

/// What a file must be, and which of its pieces were found to be so.
#[derive(Debug)]
pub(crate) struct Pieces {
    bytes: u64,
    crcs: Vec<u32>,
    sound: Vec<AtomicBool>,
}

impl Pieces {
    /// None: the file was written without, or the manifest contradicts itself.
    pub(super) fn new(bytes: u64, crcs: &[u32]) -> Option<Arc<Self>> {
        let is_whole = !crcs.is_empty() && bytes.div_ceil(PIECE as u64) == crcs.len() as u64;
        is_whole.then(|| {
            Arc::new(Self {
                bytes,
                crcs: crcs.to_vec(),
                sound: crcs.iter().map(|_| AtomicBool::new(false)).collect(),
            })
        })
    }
}

/// An open file. Without pieces it was verified as a whole.
#[derive(Clone, Debug)]
pub(super) struct PieceFile {
    file: Arc<File>,
    bytes: u64,
    pieces: Option<Arc<Pieces>>,
}

impl PieceFile {
    pub(super) fn new(file: File, pieces: Option<Arc<Pieces>>) -> io::Result<Self> {
        let bytes = match &pieces {
            Some(pieces) => pieces.bytes,
            None => file.metadata()?.len(),
        };
        Ok(Self {
            file: Arc::new(file),
            bytes,
            pieces,
        })
    }

    fn read(&self, start: u64, length: usize) -> io::Result<Bytes> {
        let end = start.saturating_add(length as u64);
        if end > self.bytes {
            return Err(damaged());
        }
        let piece = PIECE as u64;
        let (first, behind) = ((start / piece) as usize, end.div_ceil(piece) as usize);
        let unknown = |pieces: &&Arc<Pieces>| {
            let mut all = pieces.sound[first..behind].iter();
            !all.all(|sound| sound.load(Ordering::Relaxed))
        };
        let Some(pieces) = self.pieces.as_ref().filter(unknown) else {
            return self.read_exact(start, length);
        };
        let from = first as u64 * piece;
        let to = self.bytes.min(behind as u64 * piece);
        let bytes = self.read_exact(from, (to - from) as usize)?;
        for (place, content) in (first..behind).zip(bytes.chunks(PIECE)) {
            if crc32fast::hash(content) != pieces.crcs[place] {
                return Err(damaged());
            }
            pieces.sound[place].store(true, Ordering::Relaxed);
        }
        let skipped = (start - from) as usize;
        Ok(bytes.slice(skipped..skipped + length))
    }

    fn read_exact(&self, start: u64, length: usize) -> io::Result<Bytes> {
        let mut bytes = vec![0; length];
        match self.file.read_exact_at(&mut bytes, start) {
            Ok(()) => Ok(bytes.into()),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(damaged()),
            Err(error) => Err(error),
        }
    }
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "not what was written")
}

impl Length for PieceFile {
    fn len(&self) -> u64 {
        self.bytes
    }
}

impl ChunkReader for PieceFile {
    type T = BufReader<Window>;

    fn get_read(&self, start: u64) -> Result<Self::T, ParquetError> {
        let window = Window {
            file: self.clone(),
            at: start,
        };
        Ok(BufReader::with_capacity(WINDOW, window))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes, ParquetError> {
        Ok(self.read(start, length)?)
    }
}

/// Reads on from a place.
pub(super) struct Window {
    file: PieceFile,
    at: u64,
}

impl Read for Window {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let left = self.file.bytes.saturating_sub(self.at);
        let length = out.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        let bytes = self.file.read(self.at, length)?;
        out[..length].copy_from_slice(&bytes);
        self.at += length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// A file of three pieces and a bit.
    fn written() -> (File, Vec<u8>, Vec<u32>) {
        let bytes: Vec<u8> = (0..PIECE * 3 + 77).map(|n| ((n * 31) >> 3) as u8).collect();
        let mut file = tempfile::tempfile().unwrap();
        let mut crcs = PieceCrcs::default();
        for part in bytes.chunks(100_001) {
            file.write_all(part).unwrap();
            crcs.update(part);
        }
        (file, bytes, crcs.finish())
    }

    fn open(file: &File, bytes: usize, crcs: &[u32]) -> PieceFile {
        let pieces = Pieces::new(bytes as u64, crcs);
        assert!(pieces.is_some());
        PieceFile::new(file.try_clone().unwrap(), pieces).unwrap()
    }

    #[test]
    fn any_stretch_is_read_as_it_was_written() {
        let (file, bytes, crcs) = written();
        assert_eq!(crcs.len(), 4);
        let open = open(&file, bytes.len(), &crcs);
        for (start, length) in [
            (0, 1),
            (PIECE - 1, 2),
            (PIECE * 2, PIECE),
            (7, bytes.len() - 7),
            (bytes.len(), 0),
        ] {
            let read = open.get_bytes(start as u64, length).unwrap();
            assert_eq!(read, bytes[start..start + length]);
            let mut rest = Vec::new();
            let mut reader = open.get_read(start as u64).unwrap();
            reader.read_to_end(&mut rest).unwrap();
            assert_eq!(rest, bytes[start..]);
        }
        assert!(open.get_bytes(bytes.len() as u64, 1).is_err());
    }

    #[test]
    fn a_damaged_piece_is_not_read_and_the_others_are() {
        let (file, bytes, crcs) = written();
        file.write_all_at(&[!bytes[PIECE + 9]], PIECE as u64 + 9)
            .unwrap();
        let open = open(&file, bytes.len(), &crcs);
        assert!(open.get_bytes(PIECE as u64 * 2 - 1, 1).is_err());
        assert!(open.get_bytes(0, PIECE + 1).is_err());
        assert_eq!(open.get_bytes(0, PIECE).unwrap(), bytes[..PIECE]);
        assert_eq!(
            open.get_bytes(PIECE as u64 * 2, 9).unwrap(),
            bytes[PIECE * 2..][..9]
        );
        assert!(open.get_bytes(PIECE as u64, 1).is_err(), "still");
        file.set_len(PIECE as u64 * 3).unwrap();
        assert!(open.get_bytes(PIECE as u64 * 3, 1).is_err(), "cut off");
    }
}
