//! Registers in a row, as debuggers exchange them: little-endian, one right after the other.

/// A row of registers.
#[derive(Debug, Default)]
pub struct Fields {
    /// Their bytes.
    pub bytes: Vec<u8>,
    /// How many of them were taken.
    taken: usize,
}

/// A register, by its width.
pub trait Field: Sized {
    /// Appends it.
    fn append_to(self, bytes: &mut Vec<u8>);
    /// Takes the next one.
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
    /// Registers to be taken from `bytes`.
    pub fn of(bytes: &[u8]) -> Fields {
        Fields {
            bytes: bytes.to_vec(),
            taken: 0,
        }
    }

    /// Appends a register.
    pub fn put<F: Field>(&mut self, value: F) {
        value.append_to(&mut self.bytes);
    }

    /// Appends a register by its bytes.
    pub fn put_bytes(&mut self, value: &[u8]) {
        self.bytes.extend_from_slice(value);
    }

    /// The next register; behind the last there are zeros.
    pub fn take<F: Field>(&mut self) -> F {
        F::take_from(self)
    }

    /// The bytes of the next register.
    pub fn take_bytes<const N: usize>(&mut self) -> [u8; N] {
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
