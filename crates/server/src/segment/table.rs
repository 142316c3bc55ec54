//! Parquet files of plain columns: what is written, what is read, and bloom filters that are asked
//! without opening the file for good. This module and `pieces` are the only ones that know the crate `parquet`.

use super::pieces::{PieceCrcs, PieceFile, Pieces};
use crate::part::PartError;
use parquet::basic::{
    Compression, ConvertedType, Encoding, Repetition, Type as Physical, ZstdLevel,
};
use parquet::bloom_filter::Sbbf;
use parquet::column::reader::{ColumnReader, get_typed_column_reader};
use parquet::data_type::{
    ByteArray, ByteArrayType, DataType, DoubleType, FixedLenByteArray, FixedLenByteArrayType,
    Int32Type, Int64Type,
};
use parquet::errors::ParquetError;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::reader::{ChunkReader, FileReader};
use parquet::file::serialized_reader::SerializedFileReader;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::{ColumnPath, Type};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

/// A column of a table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) shape: Shape,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    I64,
    I32,
    F64,
    Bytes,
    Text,
    /// 16 bytes, big-endian.
    Id,
}

/// What its values are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Each one close to the one before.
    Growing,
    /// Few different ones.
    Repeating,
    Random,
    /// Random, and asked for by value.
    Key,
}

/// A row group's values of one column.
#[derive(Debug)]
pub(crate) enum Values {
    I64(Vec<i64>),
    I32(Vec<i32>),
    F64(Vec<f64>),
    Bytes(Vec<ByteArray>),
    Id(Vec<FixedLenByteArray>),
}

impl Values {
    pub(crate) fn u32(values: impl IntoIterator<Item = u32>) -> Self {
        Self::I32(values.into_iter().map(u32::cast_signed).collect())
    }

    pub(crate) fn u64(values: impl IntoIterator<Item = u64>) -> Self {
        Self::I64(values.into_iter().map(u64::cast_signed).collect())
    }

    pub(crate) fn text<'a>(values: impl IntoIterator<Item = &'a str>) -> Self {
        Self::Bytes(values.into_iter().map(ByteArray::from).collect())
    }

    pub(crate) fn bytes(values: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self::Bytes(values.into_iter().map(ByteArray::from).collect())
    }

    pub(crate) fn id(values: impl IntoIterator<Item = u128>) -> Self {
        let id = |v: u128| FixedLenByteArray::from(v.to_be_bytes().to_vec());
        Self::Id(values.into_iter().map(id).collect())
    }
}

/// What a manifest knows of a written file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileInfo {
    pub(crate) bytes: u64,
    pub(crate) crc: u32,
    /// CRCs of its pieces: of tables, which are read in parts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) pieces: Vec<u32>,
    #[serde(default)]
    pub(crate) groups: Vec<Group>,
}

/// A row group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) rows: u32,
    pub(crate) from_us: i64,
    pub(crate) to_us: i64,
    /// One for each column of shape [`Shape::Key`], in order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) blooms: Vec<Bloom>,
}

/// Where a bloom filter's blocks of 32 bytes lie.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Bloom {
    pub(crate) offset: u64,
    pub(crate) blocks: u32,
}

pub(crate) struct TableWriter {
    writer: SerializedFileWriter<CrcFile>,
    columns: &'static [Column],
    groups: Vec<Group>,
}

impl TableWriter {
    /// `keys`: most different keys that a row group will have; sizes its bloom filters.
    pub(crate) fn create(path: &Path, columns: &'static [Column], keys: usize) -> io::Result<Self> {
        let file = CrcFile::create(path)?;
        let fields = columns.iter().map(field).collect::<Result<_, _>>();
        let schema =
            fields.and_then(|fields| Type::group_type_builder("rows").with_fields(fields).build());
        let schema = Arc::new(schema.map_err(io_error)?);
        let properties = Arc::new(properties(columns, keys));
        let writer = SerializedFileWriter::new(file, schema, properties).map_err(io_error)?;
        Ok(Self {
            writer,
            columns,
            groups: Vec::new(),
        })
    }

    /// Writes a row group whose rows lie between two times.
    pub(crate) fn group(&mut self, times: (i64, i64), values: &[Values]) -> io::Result<()> {
        let rows = values.first().map_or(0, Values::len);
        let mut group = self.writer.next_row_group().map_err(io_error)?;
        for values in values {
            let Some(mut column) = group.next_column().map_err(io_error)? else {
                break;
            };
            let written = match values {
                Values::I64(v) => column.typed::<Int64Type>().write_batch(v, None, None),
                Values::I32(v) => column.typed::<Int32Type>().write_batch(v, None, None),
                Values::F64(v) => column.typed::<DoubleType>().write_batch(v, None, None),
                Values::Bytes(v) => column.typed::<ByteArrayType>().write_batch(v, None, None),
                Values::Id(v) => column
                    .typed::<FixedLenByteArrayType>()
                    .write_batch(v, None, None),
            };
            written.map_err(io_error)?;
            column.close().map_err(io_error)?;
        }
        group.close().map_err(io_error)?;
        self.groups.push(Group {
            rows: u32::try_from(rows).map_err(io::Error::other)?,
            from_us: times.0,
            to_us: times.1,
            blooms: Vec::new(),
        });
        Ok(())
    }

    /// Ends the file and makes it durable.
    pub(crate) fn finish(mut self, path: &Path) -> io::Result<FileInfo> {
        let metadata = self.writer.finish().map_err(io_error)?;
        let (bytes, crc) = self.writer.inner().finish()?;
        let pieces = self.writer.inner().pieces.finish();
        let reader = File::open(path)?;
        for (group, meta) in self.groups.iter_mut().zip(metadata.row_groups()) {
            for (column, meta) in self.columns.iter().zip(meta.columns()) {
                if column.shape == Shape::Key {
                    let place = meta.bloom_filter_offset().zip(meta.bloom_filter_length());
                    group.blooms.push(bloom(&reader, place)?);
                }
            }
        }
        Ok(FileInfo {
            bytes,
            crc,
            pieces,
            groups: self.groups,
        })
    }
}

impl Values {
    fn len(&self) -> usize {
        match self {
            Self::I64(v) => v.len(),
            Self::I32(v) => v.len(),
            Self::F64(v) => v.len(),
            Self::Bytes(v) => v.len(),
            Self::Id(v) => v.len(),
        }
    }
}

fn field(column: &Column) -> Result<Arc<Type>, ParquetError> {
    let physical = match column.kind {
        Kind::I64 => Physical::INT64,
        Kind::I32 => Physical::INT32,
        Kind::F64 => Physical::DOUBLE,
        Kind::Bytes | Kind::Text => Physical::BYTE_ARRAY,
        Kind::Id => Physical::FIXED_LEN_BYTE_ARRAY,
    };
    let mut field =
        Type::primitive_type_builder(column.name, physical).with_repetition(Repetition::REQUIRED);
    if column.kind == Kind::Id {
        field = field.with_length(16);
    }
    if column.kind == Kind::Text {
        field = field.with_converted_type(ConvertedType::UTF8);
    }
    Ok(Arc::new(field.build()?))
}

fn properties(columns: &[Column], keys: usize) -> WriterProperties {
    let mut properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
        .set_max_row_group_row_count(None)
        .set_created_by("whatap-server".to_owned());
    for column in columns {
        let path = ColumnPath::from(column.name);
        let dictionary = column.shape == Shape::Repeating;
        properties = properties.set_column_dictionary_enabled(path.clone(), dictionary);
        if column.shape == Shape::Growing {
            let encoding = match column.kind {
                Kind::I64 | Kind::I32 => Encoding::DELTA_BINARY_PACKED,
                Kind::Bytes | Kind::Text => Encoding::DELTA_LENGTH_BYTE_ARRAY,
                Kind::F64 | Kind::Id => Encoding::PLAIN,
            };
            properties = properties.set_column_encoding(path.clone(), encoding);
        }
        if column.shape == Shape::Key {
            properties = properties
                .set_column_bloom_filter_fpp(path.clone(), BLOOM_FALSE)
                .set_column_bloom_filter_max_ndv(path, keys.max(1) as u64);
        }
    }
    properties.build()
}

fn bloom(file: &File, place: Option<(i64, i32)>) -> io::Result<Bloom> {
    let missing = || io::Error::other("a bloom filter was not written");
    let (offset, length) = place.ok_or_else(missing)?;
    let offset = u64::try_from(offset).map_err(io::Error::other)?;
    let length = usize::try_from(length).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset)?;
    let filter = Sbbf::from_bytes(&bytes).map_err(io_error)?;
    let blocks = filter.num_blocks();
    Ok(Bloom {
        offset: offset + (length - blocks * BLOOM_BLOCK) as u64,
        blocks: u32::try_from(blocks).map_err(io::Error::other)?,
    })
}

impl Bloom {
    /// Whether a value may be in the row group. Reads 32 bytes.
    pub(crate) fn may_have(&self, file: &File, value: &[u8]) -> io::Result<bool> {
        let hash = xxh64(value);
        let mut block = [0; BLOOM_BLOCK];
        file.read_exact_at(&mut block, self.offset + self.place(hash) as u64)?;
        Ok(has(&block, hash))
    }

    pub(crate) fn bytes(&self) -> usize {
        self.blocks as usize * BLOOM_BLOCK
    }

    /// Where in the filter the block lies that knows of a hash.
    fn place(&self, hash: u64) -> usize {
        let block = ((hash >> 32) * u64::from(self.blocks)) >> 32;
        block as usize * BLOOM_BLOCK
    }
}

/// Whether a block of a bloom filter has the bits of a hash.
fn has(block: &[u8], hash: u64) -> bool {
    let words = block.as_chunks::<4>().0;
    words.iter().zip(BLOOM_SALT).all(|(word, salt)| {
        let bit = (hash as u32).wrapping_mul(salt) >> 27;
        u32::from_le_bytes(*word) & 1 << bit != 0
    })
}

/// A table's bloom filters in memory: of each row group, of each key.
#[derive(Debug)]
pub(crate) struct Filters(Vec<Vec<Box<[u8]>>>);

impl Filters {
    /// Reads and verifies the filters: a bit that got lost would hide rows from every lookup.
    pub(crate) fn read(
        path: &Path,
        name: &'static str,
        groups: &[Group],
        pieces: Option<Arc<Pieces>>,
    ) -> Result<Self, PartError> {
        let file = open(path, name, pieces)?;
        let read = |bloom: &Bloom| {
            let bytes = file.get_bytes(bloom.offset, bloom.bytes());
            // What was read may be part of a whole piece, which would stay in memory with it.
            bytes.map(|bytes| Box::from(&*bytes))
        };
        let of_group = |group: &Group| group.blooms.iter().map(read).collect();
        let filters = groups.iter().map(of_group).collect::<Result<_, _>>();
        filters.map(Self).map_err(|e| part_error(e, name))
    }

    /// The same as [`Bloom::may_have`] of a row group's filter.
    pub(crate) fn may_have(&self, group: usize, key: usize, bloom: &Bloom, value: &[u8]) -> bool {
        let hash = xxh64(value);
        let place = bloom.place(hash);
        let filter = self.0.get(group).and_then(|keys| keys.get(key));
        let block = filter.and_then(|filter| filter.get(place..place + BLOOM_BLOCK));
        block.is_none_or(|block| has(block, hash))
    }
}

fn open(
    path: &Path,
    name: &'static str,
    pieces: Option<Arc<Pieces>>,
) -> Result<PieceFile, PartError> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(PartError::Damaged(name)),
        file => Ok(PieceFile::new(file?, pieces)?),
    }
}

/// An open table.
pub(crate) struct Table {
    reader: SerializedFileReader<PieceFile>,
    name: &'static str,
    columns: &'static [Column],
}

impl std::fmt::Debug for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Table").field(&self.name).finish()
    }
}

/// Which rows of a row group.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Pick<'a> {
    All,
    First(usize),
    /// Sorted; the same one may come several times.
    These(&'a [u32]),
}

impl Table {
    pub(crate) fn open(
        path: &Path,
        name: &'static str,
        columns: &'static [Column],
        pieces: Option<Arc<Pieces>>,
    ) -> Result<Self, PartError> {
        let file = open(path, name, pieces)?;
        let reader = SerializedFileReader::new(file).map_err(|e| part_error(e, name))?;
        Ok(Self {
            reader,
            name,
            columns,
        })
    }

    pub(crate) fn groups(&self) -> usize {
        self.reader.num_row_groups()
    }

    pub(crate) fn rows(&self, group: usize) -> usize {
        let rows = self.reader.metadata().row_group(group).num_rows();
        usize::try_from(rows).unwrap_or(0)
    }

    pub(crate) fn i64(&self, group: usize, column: &str, pick: Pick<'_>) -> Read64 {
        self.read::<Int64Type>(group, column, pick)
    }

    pub(crate) fn u32(
        &self,
        group: usize,
        column: &str,
        pick: Pick<'_>,
    ) -> Result<Vec<u32>, PartError> {
        let values = self.read::<Int32Type>(group, column, pick)?;
        Ok(values.into_iter().map(i32::cast_unsigned).collect())
    }

    pub(crate) fn f64(
        &self,
        group: usize,
        column: &str,
        pick: Pick<'_>,
    ) -> Result<Vec<f64>, PartError> {
        self.read::<DoubleType>(group, column, pick)
    }

    pub(crate) fn bytes(
        &self,
        group: usize,
        column: &str,
        pick: Pick<'_>,
    ) -> Result<Vec<ByteArray>, PartError> {
        self.read::<ByteArrayType>(group, column, pick)
    }

    pub(crate) fn texts(
        &self,
        group: usize,
        column: &str,
        pick: Pick<'_>,
    ) -> Result<Vec<String>, PartError> {
        self.bytes(group, column, pick)?
            .iter()
            .map(|b| {
                let text = std::str::from_utf8(b.data());
                text.map(str::to_owned)
                    .map_err(|_| PartError::Damaged(self.name))
            })
            .collect()
    }

    pub(crate) fn ids(
        &self,
        group: usize,
        column: &str,
        pick: Pick<'_>,
    ) -> Result<Vec<u128>, PartError> {
        self.read::<FixedLenByteArrayType>(group, column, pick)?
            .iter()
            .map(|b| {
                let bytes: [u8; 16] = b
                    .data()
                    .try_into()
                    .map_err(|_| PartError::Damaged(self.name))?;
                Ok(u128::from_be_bytes(bytes))
            })
            .collect()
    }

    fn read<T: DataType>(
        &self,
        group: usize,
        column: &str,
        pick: Pick<'_>,
    ) -> Result<Vec<T::T>, PartError> {
        self.try_read::<T>(group, column, pick)
            .map_err(|error| part_error(error, self.name))
    }

    fn try_read<T: DataType>(
        &self,
        group: usize,
        column: &str,
        pick: Pick<'_>,
    ) -> Result<Vec<T::T>, ParquetError> {
        let position = self.columns.iter().position(|c| c.name == column);
        let position = position.ok_or_else(|| ParquetError::General("no such column".into()))?;
        let group_reader = self.reader.get_row_group(group)?;
        let reader: ColumnReader = group_reader.get_column_reader(position)?;
        let mut reader = get_typed_column_reader::<T>(reader);
        let rows = self.rows(group);
        let wanted = match pick {
            Pick::All => rows,
            Pick::First(n) => n.min(rows),
            Pick::These(these) => these.len(),
        };
        let mut values = Vec::with_capacity(wanted);
        match pick {
            Pick::All | Pick::First(_) => {
                reader.read_records(wanted, None, None, &mut values)?;
            }
            Pick::These(these) => {
                let mut at = 0;
                for &row in these {
                    let row = row as usize;
                    if row + 1 == at
                        && let Some(last) = values.last()
                    {
                        let again = T::T::clone(last);
                        values.push(again);
                        continue;
                    }
                    reader.skip_records(row.saturating_sub(at))?;
                    reader.read_records(1, None, None, &mut values)?;
                    at = row + 1;
                }
            }
        }
        if values.len() != wanted {
            return Err(ParquetError::General("rows are missing".into()));
        }
        Ok(values)
    }
}

type Read64 = Result<Vec<i64>, PartError>;

fn io_error(error: ParquetError) -> io::Error {
    match error {
        ParquetError::External(inner) => match inner.downcast::<io::Error>() {
            Ok(io) => *io,
            Err(other) => io::Error::other(other),
        },
        other => io::Error::other(other),
    }
}

fn part_error(error: ParquetError, name: &'static str) -> PartError {
    let ParquetError::External(inner) = error else {
        return PartError::Damaged(name);
    };
    match inner.downcast::<io::Error>() {
        Ok(io) if io.kind() != io::ErrorKind::InvalidData => PartError::Io(*io),
        _ => PartError::Damaged(name),
    }
}

/// A new file that knows its length and CRC.
pub(crate) struct CrcFile {
    file: File,
    bytes: u64,
    crc: crc32fast::Hasher,
    pieces: PieceCrcs,
}

impl CrcFile {
    pub(crate) fn create(path: &Path) -> io::Result<Self> {
        let file = std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        Ok(Self {
            file,
            bytes: 0,
            crc: crc32fast::Hasher::new(),
            pieces: PieceCrcs::default(),
        })
    }

    /// Makes the file durable.
    pub(crate) fn finish(&self) -> io::Result<(u64, u32)> {
        self.file.sync_all()?;
        Ok((self.bytes, self.crc.clone().finalize()))
    }
}

impl Write for CrcFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.crc.update(&bytes[..written]);
        self.pieces.update(&bytes[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Whether a file is what was written.
pub(crate) fn is_sound(path: &Path, info: &FileInfo) -> io::Result<bool> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    if file.metadata()?.len() != info.bytes {
        return Ok(false);
    }
    let mut crc = crc32fast::Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            n => crc.update(&buffer[..n]),
        }
    }
    Ok(crc.finalize() == info.crc)
}

/// The hash that Parquet's bloom filters use, for inputs shorter than 32 bytes.
fn xxh64(bytes: &[u8]) -> u64 {
    const P1: u64 = 0x9e37_79b1_85eb_ca87;
    const P2: u64 = 0xc2b2_ae3d_27d4_eb4f;
    const P3: u64 = 0x1656_67b1_9e37_79f9;
    const P4: u64 = 0x85eb_ca77_c2b2_ae63;
    const P5: u64 = 0x27d4_eb2f_1656_67c5;
    debug_assert!(bytes.len() < 32);
    let mut hash = P5.wrapping_add(bytes.len() as u64);
    let (eights, rest) = bytes.as_chunks::<8>();
    for eight in eights {
        let lane = u64::from_le_bytes(*eight)
            .wrapping_mul(P2)
            .rotate_left(31)
            .wrapping_mul(P1);
        hash = (hash ^ lane)
            .rotate_left(27)
            .wrapping_mul(P1)
            .wrapping_add(P4);
    }
    let (fours, rest) = rest.as_chunks::<4>();
    for four in fours {
        hash ^= u64::from(u32::from_le_bytes(*four)).wrapping_mul(P1);
        hash = hash.rotate_left(23).wrapping_mul(P2).wrapping_add(P3);
    }
    for &byte in rest {
        hash ^= u64::from(byte).wrapping_mul(P5);
        hash = hash.rotate_left(11).wrapping_mul(P1);
    }
    hash = (hash ^ hash >> 33).wrapping_mul(P2);
    hash = (hash ^ hash >> 29).wrapping_mul(P3);
    hash ^ hash >> 32
}

const BLOOM_BLOCK: usize = 32;
/// Part of the absent ids that a filter lets through.
const BLOOM_FALSE: f64 = 0.01;
const BLOOM_SALT: [u32; 8] = [
    0x47b6_137b,
    0x4497_4d91,
    0x8824_ad5b,
    0xa2b7_289d,
    0x7054_95c7,
    0x2df1_424b,
    0x9efc_4947,
    0x5c6b_fb31,
];

#[cfg(test)]
mod tests {
    use super::*;

    static COLUMNS: [Column; 6] = [
        Column {
            name: "time",
            kind: Kind::I64,
            shape: Shape::Growing,
        },
        Column {
            name: "id",
            kind: Kind::I64,
            shape: Shape::Key,
        },
        Column {
            name: "trace",
            kind: Kind::Id,
            shape: Shape::Key,
        },
        Column {
            name: "name",
            kind: Kind::I32,
            shape: Shape::Repeating,
        },
        Column {
            name: "text",
            kind: Kind::Text,
            shape: Shape::Growing,
        },
        Column {
            name: "value",
            kind: Kind::F64,
            shape: Shape::Random,
        },
    ];

    fn mixed(n: u64) -> u64 {
        n.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ n << 7
    }

    fn write(path: &Path, groups: u64, rows: u64) -> FileInfo {
        let mut writer = TableWriter::create(path, &COLUMNS, 5_000).expect("creates");
        for group in 0..groups {
            let n = || group * rows..(group + 1) * rows;
            let values = [
                Values::I64(n().map(|n| n.cast_signed() * 3).collect()),
                Values::u64(n().map(mixed)),
                Values::id(n().map(|n| u128::from(mixed(n)) << 64 | u128::from(n))),
                Values::u32(n().map(|n| u32::MAX - u32::try_from(n % 5).expect("small"))),
                Values::text(n().map(|n| if n % 2 == 0 { "even" } else { "odd, 홀수" })),
                Values::F64(n().map(|n| n as f64 / 8.0).collect()),
            ];
            writer.group((0, 1), &values).expect("writes");
        }
        writer.finish(path).expect("finishes")
    }

    #[test]
    fn every_kind_of_column_comes_back_whole_and_in_part() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("t.parquet");
        let info = write(&path, 2, 50_000);
        assert!(is_sound(&path, &info).expect("reads"));
        let table = Table::open(
            &path,
            "t.parquet",
            &COLUMNS,
            Pieces::new(info.bytes, &info.pieces),
        )
        .expect("opens");
        assert_eq!((table.groups(), table.rows(1)), (2, 50_000));
        let all = table.i64(1, "time", Pick::All).expect("reads");
        assert_eq!((all.len(), all[0], all[49_999]), (50_000, 150_000, 299_997));
        let these = Pick::These(&[0, 7, 7, 30_001, 49_999]);
        assert_eq!(
            table.u32(0, "name", these).expect("reads"),
            [0, 2, 2, 1, 4].map(|n| u32::MAX - n)
        );
        assert_eq!(
            table.texts(0, "text", these).expect("reads"),
            ["even", "odd, 홀수", "odd, 홀수", "odd, 홀수", "odd, 홀수"]
        );
        assert_eq!(
            table.ids(1, "trace", Pick::First(1)).expect("reads"),
            [u128::from(mixed(50_000)) << 64 | 50_000]
        );
        assert_eq!(
            table.f64(0, "value", these).expect("reads")[3],
            30_001.0 / 8.0
        );
        assert!(table.u32(0, "name", Pick::These(&[50_000])).is_err());
    }

    #[test]
    fn bloom_filters_have_every_key_and_few_others() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("t.parquet");
        let info = write(&path, 1, 5_000);
        let file = File::open(&path).expect("opens");
        let [ids, traces] = &info.groups[0].blooms[..] else {
            panic!("two filters");
        };
        let mut wrong = 0;
        for n in 0..5_000 {
            let trace = u128::from(mixed(n)) << 64 | u128::from(n);
            assert!(ids.may_have(&file, &mixed(n).to_le_bytes()).expect("reads"));
            assert!(traces.may_have(&file, &trace.to_be_bytes()).expect("reads"));
            let absent = mixed(n + 1_000_000).to_le_bytes();
            wrong += u32::from(ids.may_have(&file, &absent).expect("reads"));
        }
        assert!(wrong < 150, "{wrong} of 5000");
    }

    #[test]
    fn filters_in_memory_say_what_those_in_the_file_say() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("t.parquet");
        let info = write(&path, 2, 3_000);
        let read = || {
            let pieces = Pieces::new(info.bytes, &info.pieces);
            Filters::read(&path, "t.parquet", &info.groups, pieces)
        };
        let filters = read().expect("reads");
        let file = File::open(&path).expect("opens");
        let mut passed = 0;
        for n in 0..9_000 {
            let id = mixed(n).to_le_bytes();
            let trace = (u128::from(mixed(n)) << 64 | u128::from(n)).to_be_bytes();
            for (number, group) in info.groups.iter().enumerate() {
                for (key, value) in [&id[..], &trace].into_iter().enumerate() {
                    let bloom = &group.blooms[key];
                    let in_file = bloom.may_have(&file, value).expect("reads");
                    assert_eq!(filters.may_have(number, key, bloom, value), in_file, "{n}");
                    passed += u32::from(in_file);
                }
            }
        }
        assert!((12_000..12_500).contains(&passed), "{passed}");
        let place = info.groups[1].blooms[0].offset;
        let mut bytes = std::fs::read(&path).expect("reads");
        bytes[usize::try_from(place).expect("fits")] ^= 1;
        std::fs::write(&path, bytes).expect("writes");
        assert!(matches!(read(), Err(PartError::Damaged("t.parquet"))));
    }

    #[test]
    fn a_changed_file_is_noticed() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("t.parquet");
        let info = write(&path, 1, 100);
        let bytes = std::fs::read(&path).expect("reads");
        let mut flipped = bytes.clone();
        flipped[bytes.len() / 2] ^= 1;
        for changed in [&flipped[..], &bytes[..bytes.len() - 1], &[]] {
            std::fs::write(&path, changed).expect("writes");
            assert!(!is_sound(&path, &info).expect("reads"));
        }
        std::fs::remove_file(&path).expect("removes");
        assert!(!is_sound(&path, &info).expect("looks"));
    }
}
