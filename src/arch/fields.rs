//! Registers in gdb's wire format: little-endian, concatenated.

/// Concatenated registers.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub bytes: Vec<u8>,
    /// Bytes consumed by [`Fields::take`].
    taken: usize,
}

/// A register value of a certain width.
pub(super) trait Field: Sized {
    /// Appends the value.
    fn append_to(self, bytes: &mut Vec<u8>);
    /// Takes the next value.
    fn take_from(fields: &mut Fields) -> Self;
}

macro_rules! field {
    ($($width:ty)*) => {
        $(impl Field for $width {
            fn append_to(self, bytes: &mut Vec<u8>) {
                bytes.extend_from_slice(&self.to_le_bytes());
            }

            fn take_from(fields: &mut Fields) -> $width {
                <$width>::from_le_bytes(fields.take_bytes())
            }
        })*
    };
}

field!(u32 u64 u128);

impl Fields {
    /// Returns fields to take registers from.
    pub(super) fn of(bytes: &[u8]) -> Fields {
        Fields {
            bytes: bytes.to_vec(),
            taken: 0,
        }
    }

    /// Appends a register.
    pub(super) fn put<F: Field>(&mut self, value: F) {
        value.append_to(&mut self.bytes);
    }

    /// Appends a register by its bytes.
    pub(super) fn put_bytes(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
    }

    /// Takes the next register; past the end it is zero.
    pub(super) fn take<F: Field>(&mut self) -> F {
        F::take_from(self)
    }

    /// Takes the bytes of the next register; past the end they are zero.
    pub(super) fn take_bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        let rest = self.bytes.get(self.taken..).unwrap_or_default();
        let length = rest.len().min(N);
        bytes[..length].copy_from_slice(&rest[..length]);
        self.taken += N;
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_in_the_order_of_writing() {
        let mut fields = Fields::default();
        fields.put(0x0102_0304_u32);
        fields.put_bytes(&[5, 6, 7]);
        fields.put(8_u64);
        assert_eq!(fields.bytes, [4, 3, 2, 1, 5, 6, 7, 8, 0, 0, 0, 0, 0, 0, 0]);
        let mut fields = Fields::of(&fields.bytes);
        assert_eq!(fields.take::<u32>(), 0x0102_0304);
        assert_eq!(fields.take_bytes(), [5, 6, 7]);
        assert_eq!(fields.take::<u64>(), 8);
    }

    #[test]
    fn past_the_last_field_there_are_zeros() {
        let mut fields = Fields::of(&[1, 2, 3, 4, 5]);
        assert_eq!(
            (
                fields.take::<u32>(),
                fields.take::<u64>(),
                fields.take::<u32>()
            ),
            (0x0403_0201, 5, 0)
        );
    }
}
