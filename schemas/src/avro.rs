//! Avro's binary encoding of the types that our records are made of.
//!
//! Every event is encoded and decoded several times on its way, and a general Avro library, which
//! walks the schema at run time, costs more than all the rest of the work together. So records in
//! this build's own schemas are written and read directly; other versions are not known at compile
//! time and go through `apache_avro` (see [`crate::codec`]). A test holds the two against each other,
//! byte for byte, for what is well formed and for what is not.
//!
//! After the Avro 1.12 specification, "Binary Encoding": integers are zigzag variable-length, text and
//! bytes have their length before them, an optional value is the union of null (0) and it (1), an
//! array is a row of blocks that an empty one ends.
//!
//! * [`Input`]: what is left of a datum; hands out slices of it.
//! * [`Datum`]: what can be written and read.
//! * `record!`, `enumeration!`: a record is its fields one after the other, an enumeration its index.

/// A datum that does not fit its schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Malformed {
    field: &'static str,
    problem: &'static str,
}

impl Malformed {
    pub(crate) const fn new(problem: &'static str) -> Malformed {
        Malformed { field: "", problem }
    }

    /// Names the field it was found in; the innermost stays.
    pub fn within(mut self, field: &'static str) -> Malformed {
        if self.field.is_empty() {
            self.field = field;
        }
        self
    }
}

/// What is left of a datum.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// A datum from its beginning.
    pub fn new(datum: &'a [u8]) -> Input<'a> {
        Input(datum)
    }

    /// Number of bytes left.
    pub fn left(&self) -> usize {
        self.0.len()
    }

    /// A `long`.
    #[inline]
    pub fn long(&mut self) -> Result<i64, Malformed> {
        let mut zigzag = 0_u64;
        for shift in (0..70).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or(CUT)?;
            self.0 = rest;
            // The tenth byte has one bit that counts; `apache_avro` ignores the others too.
            zigzag |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok((zigzag >> 1) as i64 ^ -((zigzag & 1) as i64));
            }
        }
        Err(Malformed::new("an integer has more than ten bytes"))
    }

    /// An `int`.
    #[inline]
    pub fn int(&mut self) -> Result<i32, Malformed> {
        i32::try_from(self.long()?).map_err(|_| Malformed::new("the integer is out of range"))
    }

    /// A `boolean`.
    #[inline]
    pub fn boolean(&mut self) -> Result<bool, Malformed> {
        let (byte, rest) = self.0.split_first().ok_or(CUT)?;
        self.0 = rest;
        match byte {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed::new("a boolean is neither 0 nor 1")),
        }
    }

    /// `bytes`, borrowed.
    #[inline]
    pub fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length =
            usize::try_from(self.long()?).map_err(|_| Malformed::new("a length is negative"))?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(CUT)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// Passes over as many bytes.
    pub(crate) fn skip(&mut self, count: usize) -> Result<(), Malformed> {
        let (_, rest) = self.0.split_at_checked(count).ok_or(CUT)?;
        self.0 = rest;
        Ok(())
    }

    /// A `string`, borrowed.
    #[inline]
    pub fn text(&mut self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed::new("the text is not UTF-8"))
    }

    /// A union of null and what `read` reads.
    #[inline]
    pub fn optional<T>(
        &mut self,
        read: impl FnOnce(&mut Input<'a>) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        match self.long()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(Malformed::new("a union has a branch that it does not have")),
        }
    }

    /// An `array`; `read` is called for each element.
    pub fn array(
        &mut self,
        mut read: impl FnMut(&mut Input<'a>) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        let mut left = MAX_VALUES;
        loop {
            let count = self.long()?;
            if count == 0 {
                return Ok(());
            }
            // A negative count is followed by the size of the block in bytes, for those who skip it.
            if count < 0 {
                self.long()?;
            }
            // Every element has a byte at least, so a count that lies ends with the input.
            for _ in 0..count.unsigned_abs() {
                left = left.checked_sub(1).ok_or(TOO_MANY)?;
                read(self)?;
            }
        }
    }
}

/// Most values in one datum of another version, and most elements of a list in one of this: a record of ours has some
/// hundreds, one with the errors of a hundred attempts some thousand. It bounds the memory that a datum takes beyond its
/// own length.
pub(crate) const MAX_VALUES: usize = 100_000;

pub(crate) const TOO_MANY: Malformed =
    Malformed::new("it has more values than any record of sluice's");

const CUT: Malformed = Malformed { field: "", problem: "the datum ends in the middle" };

/// What can be written to and read from a datum.
pub trait Datum: Sized {
    /// Appends its encoding.
    fn write(&self, out: &mut Vec<u8>);

    /// Reads one.
    fn read(input: &mut Input<'_>) -> Result<Self, Malformed>;
}

#[inline]
fn write_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    (bytes.len() as i64).write(out);
    out.extend_from_slice(bytes);
}

impl Datum for i64 {
    #[inline]
    fn write(&self, out: &mut Vec<u8>) {
        let mut zigzag = ((self << 1) ^ (self >> 63)) as u64;
        while zigzag >= 0x80 {
            out.push(zigzag as u8 | 0x80);
            zigzag >>= 7;
        }
        out.push(zigzag as u8);
    }

    #[inline]
    fn read(input: &mut Input<'_>) -> Result<i64, Malformed> {
        input.long()
    }
}

impl Datum for i32 {
    #[inline]
    fn write(&self, out: &mut Vec<u8>) {
        i64::from(*self).write(out);
    }

    #[inline]
    fn read(input: &mut Input<'_>) -> Result<i32, Malformed> {
        input.int()
    }
}

impl Datum for bool {
    #[inline]
    fn write(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }

    #[inline]
    fn read(input: &mut Input<'_>) -> Result<bool, Malformed> {
        input.boolean()
    }
}

impl Datum for String {
    #[inline]
    fn write(&self, out: &mut Vec<u8>) {
        write_bytes(self.as_bytes(), out);
    }

    #[inline]
    fn read(input: &mut Input<'_>) -> Result<String, Malformed> {
        input.text().map(str::to_owned)
    }
}

/// `bytes`; the array of `u8`, which Avro does not have, cannot be meant.
impl Datum for Vec<u8> {
    #[inline]
    fn write(&self, out: &mut Vec<u8>) {
        write_bytes(self, out);
    }

    #[inline]
    fn read(input: &mut Input<'_>) -> Result<Vec<u8>, Malformed> {
        input.bytes().map(<[u8]>::to_vec)
    }
}

impl<T: Datum> Datum for Option<T> {
    #[inline]
    fn write(&self, out: &mut Vec<u8>) {
        out.push(if self.is_some() { 2 } else { 0 });
        if let Some(value) = self {
            value.write(out);
        }
    }

    #[inline]
    fn read(input: &mut Input<'_>) -> Result<Option<T>, Malformed> {
        input.optional(T::read)
    }
}

impl<T: Datum> Datum for Vec<T> {
    fn write(&self, out: &mut Vec<u8>) {
        if !self.is_empty() {
            (self.len() as i64).write(out);
            self.iter().for_each(|element| element.write(out));
        }
        out.push(0);
    }

    fn read(input: &mut Input<'_>) -> Result<Vec<T>, Malformed> {
        let mut elements = Vec::new();
        input.array(|input| {
            elements.push(T::read(input)?);
            Ok(())
        })?;
        Ok(elements)
    }
}

/// The times that a reader in any language has a value for: the years 1 to 9999, in milliseconds since the Unix epoch.
/// Python's, for one, fails at the record that holds another, and at that offset for ever.
const TIMES: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;

/// A field of the logical type `timestamp-millis`. What no clock can mean is written as the nearest time that one can, or
/// as no time where there need not be one.
pub(crate) trait Time {
    /// Writes it.
    fn write_time(&self, out: &mut Vec<u8>);
}

impl Time for i64 {
    fn write_time(&self, out: &mut Vec<u8>) {
        (*self).clamp(*TIMES.start(), *TIMES.end()).write(out);
    }
}

impl Time for Option<i64> {
    fn write_time(&self, out: &mut Vec<u8>) {
        self.filter(|time| TIMES.contains(time)).write(out);
    }
}

/// A record is its fields in the schema's order. Leaving one out does not compile; the order is tested. `: time` stands
/// behind fields that are times.
macro_rules! record {
    (@write $value:expr, $out:ident) => {
        crate::avro::Datum::write($value, $out)
    };
    (@write $value:expr, $out:ident, time) => {
        crate::avro::Time::write_time($value, $out)
    };
    ($record:ident { $($field:ident $(: $kind:ident)?),* $(,)? }) => {
        impl crate::avro::Datum for $record {
            fn write(&self, out: &mut Vec<u8>) {
                $(record!(@write &self.$field, out $(, $kind)?);)*
            }

            fn read(
                input: &mut crate::avro::Input<'_>,
            ) -> Result<$record, crate::avro::Malformed> {
                Ok($record {
                    $($field: crate::avro::Datum::read(input)
                        .map_err(|error| error.within(stringify!($field)))?,)*
                })
            }
        }
    };
}

/// An enumeration is the index of its symbol, in the schema's order.
macro_rules! enumeration {
    ($enumeration:ident { $($symbol:ident = $index:literal),* $(,)? }) => {
        impl crate::avro::Datum for $enumeration {
            fn write(&self, out: &mut Vec<u8>) {
                let index: i32 = match self {
                    $($enumeration::$symbol => $index,)*
                };
                crate::avro::Datum::write(&index, out);
            }

            fn read(
                input: &mut crate::avro::Input<'_>,
            ) -> Result<$enumeration, crate::avro::Malformed> {
                match input.int()? {
                    $($index => Ok($enumeration::$symbol),)*
                    _ => Err(crate::avro::UNKNOWN_SYMBOL),
                }
            }
        }
    };
}

/// An enumeration's index names no symbol.
pub const UNKNOWN_SYMBOL: Malformed =
    Malformed { field: "", problem: "an enumeration has a symbol that it does not have" };

pub(crate) use {enumeration, record};
