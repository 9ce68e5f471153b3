//! Writes messages in the encoding of Protocol Buffers (protobuf.dev/programming-guides/encoding): as much of it as the
//! messages that we send need, which is too little for a compiler and its runtime. Nothing here reads. Pure.

/// The fields of one message, in the order in which they were added.
#[derive(Debug, Default)]
pub struct Message(Vec<u8>);

/// How a field's value is framed on the wire.
#[derive(Clone, Copy)]
enum Wire {
    Varint = 0,
    Fixed64 = 1,
    Length = 2,
}

impl Message {
    /// A field of type `uint32`, `uint64`, `int64` (not negative), `bool` or an enum.
    pub fn uint(&mut self, field: u32, value: u64) -> &mut Self {
        self.key(field, Wire::Varint);
        self.varint(value);
        self
    }

    /// A field of type `sint32` or `sint64`.
    pub fn sint(&mut self, field: u32, value: i64) -> &mut Self {
        self.uint(field, zigzag(value))
    }

    /// A field of type `double`.
    pub fn double(&mut self, field: u32, value: f64) -> &mut Self {
        self.fixed64(field, value.to_bits())
    }

    /// A field of type `fixed64`.
    pub fn fixed64(&mut self, field: u32, value: u64) -> &mut Self {
        self.key(field, Wire::Fixed64);
        self.0.extend_from_slice(&value.to_le_bytes());
        self
    }

    /// A field of type `string` or `bytes`.
    pub fn bytes(&mut self, field: u32, value: impl AsRef<[u8]>) -> &mut Self {
        self.key(field, Wire::Length);
        self.delimited(value.as_ref());
        self
    }

    /// A field that is a message; once for each of a repeated one.
    pub fn message(&mut self, field: u32, value: &Self) -> &mut Self {
        self.bytes(field, &value.0)
    }

    /// A field of type `repeated sint64`, packed.
    pub fn sints(&mut self, field: u32, values: &[i64]) -> &mut Self {
        let mut packed = Self::default();
        for value in values {
            packed.varint(zigzag(*value));
        }
        self.message(field, &packed)
    }

    /// Appends a whole message after its length, as streams of messages are framed.
    pub fn append_delimited(&self, out: &mut Vec<u8>) {
        let mut framed = Self(std::mem::take(out));
        framed.delimited(&self.0);
        *out = framed.0;
    }

    /// The message itself.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn key(&mut self, field: u32, wire: Wire) {
        self.varint(u64::from(field) << 3 | wire as u64);
    }

    fn delimited(&mut self, value: &[u8]) {
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}

const fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A field's value as a test wants to see it.
    #[derive(Debug, Clone, PartialEq)]
    pub(crate) enum Value {
        Varint(u64),
        Fixed64(u64),
        Bytes(Vec<u8>),
    }

    impl Value {
        pub(crate) fn fields(&self) -> Vec<(u64, Value)> {
            let Self::Bytes(bytes) = self else { panic!("{self:?} is no message") };
            fields(bytes)
        }

        pub(crate) fn text(&self) -> String {
            let Self::Bytes(bytes) = self else { panic!("{self:?} is no text") };
            String::from_utf8(bytes.clone()).unwrap()
        }
    }

    fn varint(bytes: &mut &[u8]) -> u64 {
        let length = bytes.iter().position(|byte| byte & 0x80 == 0).unwrap() + 1;
        let (value, rest) = bytes.split_at(length);
        *bytes = rest;
        value.iter().rev().fold(0, |sum, byte| sum << 7 | u64::from(byte & 0x7f))
    }

    /// The fields of an encoded message, by their numbers.
    pub(crate) fn fields(mut bytes: &[u8]) -> Vec<(u64, Value)> {
        let mut fields = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let value = match key & 7 {
                0 => Value::Varint(varint(&mut bytes)),
                1 => {
                    let (value, rest) = bytes.split_first_chunk().unwrap();
                    bytes = rest;
                    Value::Fixed64(u64::from_le_bytes(*value))
                }
                2 => {
                    let length = varint(&mut bytes) as usize;
                    let (value, rest) = bytes.split_at(length);
                    bytes = rest;
                    Value::Bytes(value.to_vec())
                }
                other => panic!("wire type {other}"),
            };
            fields.push((key >> 3, value));
        }
        fields
    }

    /// Messages that each stand after their length.
    pub(crate) fn delimited(mut bytes: &[u8]) -> Vec<Value> {
        let mut messages = Vec::new();
        while !bytes.is_empty() {
            let length = varint(&mut bytes) as usize;
            let (message, rest) = bytes.split_at(length);
            messages.push(Value::Bytes(message.to_vec()));
            bytes = rest;
        }
        messages
    }

    #[test]
    fn the_examples_of_the_documentation() {
        let mut message = Message::default();
        message.uint(1, 150);
        assert_eq!(message.into_bytes(), [0x08, 0x96, 0x01]);
        let mut message = Message::default();
        message.bytes(2, "testing");
        assert_eq!(message.into_bytes(), b"\x12\x07testing");
        assert_eq!([0, -1, 1, -2, i64::MAX, i64::MIN].map(zigzag), [0, 1, 2, 3, u64::MAX - 1, u64::MAX]);
        let mut inner = Message::default();
        inner.uint(1, 150);
        let mut outer = Message::default();
        outer.message(3, &inner);
        assert_eq!(outer.into_bytes(), [0x1a, 0x03, 0x08, 0x96, 0x01]);
    }

    #[test]
    fn what_is_written_can_be_read() {
        let mut message = Message::default();
        message.sint(1, -3).double(2, 0.5).fixed64(16, 7).sints(4, &[1, -1, 300]);
        let mut framed = b"".to_vec();
        message.append_delimited(&mut framed);
        message.append_delimited(&mut framed);
        let [first, second] = delimited(&framed).try_into().unwrap();
        assert_eq!(first, second);
        let wanted = [
            (1, Value::Varint(5)),
            (2, Value::Fixed64(0.5_f64.to_bits())),
            (16, Value::Fixed64(7)),
            (4, Value::Bytes(vec![2, 1, 0xd8, 4])),
        ];
        assert_eq!(first.fields(), wanted);
    }
}
