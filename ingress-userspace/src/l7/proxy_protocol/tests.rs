//! Headers as load balancers send them, and as nobody should.

use super::*;

fn binary(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
    let mut bytes = SIGNATURE.to_vec();
    bytes.extend([0x20 | command, family]);
    bytes.extend(u16::try_from(rest.len()).unwrap().to_be_bytes());
    bytes.extend_from_slice(rest);
    bytes
}

const V4: &[u8] = &[192, 0, 2, 7, 192, 0, 2, 1, 0x13, 0x88, 0, 80];

fn v6() -> Vec<u8> {
    let addresses = ["2001:db8::7", "2001:db8::1"].map(|text| text.parse::<Ipv6Addr>().unwrap().octets());
    [addresses.concat(), vec![0x13, 0x88, 0x01, 0xbb]].concat()
}

fn told(bytes: &[u8]) -> Option<(String, String)> {
    // Whatever follows belongs to the connection.
    let length = bytes.len();
    let header = parse(&[bytes, b"GET / HTTP/1.1\r\n"].concat()).unwrap().unwrap();
    assert_eq!(header.length, length, "{bytes:?}");
    header.addresses.map(|(from, to)| (from.to_string(), to.to_string()))
}

#[test]
fn headers_of_both_versions() {
    let v4 = Some(("192.0.2.7:5000".to_owned(), "192.0.2.1:80".to_owned()));
    let six = Some(("[2001:db8::7]:5000".to_owned(), "[2001:db8::1]:443".to_owned()));
    assert_eq!(told(b"PROXY TCP4 192.0.2.7 192.0.2.1 5000 80\r\n"), v4);
    assert_eq!(told(b"PROXY TCP6 2001:db8::7 2001:db8::1 5000 443\r\n"), six);
    assert_eq!(told(b"PROXY UNKNOWN\r\n"), None);
    assert_eq!(told(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"), None);
    assert_eq!(told(&binary(1, 0x11, V4)), v4);
    assert_eq!(told(&binary(1, 0x21, &v6())), six);
    // A health check, an unspecified family, a UNIX socket.
    assert_eq!(told(&binary(0, 0x00, b"")), None);
    assert_eq!(told(&binary(0, 0x11, V4)), None);
    assert_eq!(told(&binary(1, 0x00, b"anything")), None);
    assert_eq!(told(&binary(1, 0x31, &[0; 216])), None);
}

#[test]
fn extensions_are_walked() {
    let with = |extensions: &[u8]| binary(1, 0x11, &[V4, extensions].concat());
    for (extensions, is_tls) in [
        (&[0x04, 0, 0][..], false),
        (&[0x01, 0, 2, b'h', b'2', 0x20, 0, 5, 1, 0, 0, 0, 0][..], true),
        (&[0x20, 0, 5, 0, 0, 0, 0, 0][..], false),
        (&[0x20, 0, 0][..], false),
    ] {
        assert_eq!(parse(&with(extensions)).unwrap().unwrap().is_tls, is_tls, "{extensions:?}");
    }
    for broken in [&[0x04][..], &[0x04, 0][..], &[0x04, 0, 1][..], &[0x04, 0xff, 0xff, 0][..]] {
        assert_eq!(parse(&with(broken)), Err(Error::Malformed), "{broken:?}");
    }
}

#[test]
fn every_piece_of_a_header_waits_for_the_rest() {
    for whole in [
        b"PROXY TCP4 192.0.2.7 192.0.2.1 5000 80\r\n".to_vec(),
        binary(1, 0x11, V4),
        binary(1, 0x21, &v6()),
        binary(0, 0, b"x"),
    ] {
        for cut in 0..whole.len() {
            assert_eq!(parse(&whole[..cut]), Ok(None), "{:?} cut at {cut}", String::from_utf8_lossy(&whole));
        }
    }
}

#[test]
fn what_is_not_a_header_costs_the_connection() {
    for text in ["GET / HTTP/1.1\r\n", "P\r\n", "PROXY\r\n", "proxy TCP4 ", "\x16\x03\x01", "\r\n\r\nGET"] {
        assert_eq!(parse(text.as_bytes()), Err(Error::Missing), "{text:?}");
    }
    for line in [
        "PROXY \r\n",
        "PROXY TCP4 192.0.2.7 192.0.2.1 5000 80\n",
        "PROXY TCP4 192.0.2.7 192.0.2.1 5000\r\n",
        "PROXY TCP4 192.0.2.7 192.0.2.1 5000 80 9\r\n",
        "PROXY TCP4  192.0.2.7 192.0.2.1 5000 80\r\n",
        "PROXY TCP4 192.0.2.7 192.0.2.1 5000 65536\r\n",
        "PROXY TCP4 192.0.2.7 192.0.2.1 +500 80\r\n",
        "PROXY TCP4 192.0.2.07 192.0.2.1 5000 80\r\n",
        "PROXY TCP4 2001:db8::7 2001:db8::1 5000 80\r\n",
        "PROXY TCP6 192.0.2.7 192.0.2.1 5000 80\r\n",
        "PROXY UDP4 192.0.2.7 192.0.2.1 5000 80\r\n",
        "PROXY UNKNOWNX\r\n",
        "PROXY TCP4 192.0.2.7 192.0.2.1 5000 80 \r\n",
        "PROXY TCP4 \u{e4} 192.0.2.1 5000 80\r\n",
    ] {
        assert_eq!(parse(line.as_bytes()), Err(Error::Malformed), "{line:?}");
    }
    let mut other_version = binary(1, 0x11, V4);
    other_version[12] = 0x11;
    for bytes in [
        other_version,
        binary(2, 0x11, V4),
        binary(1, 0x12, V4),
        binary(1, 0x11, &V4[..11]),
        binary(1, 0x99, V4),
    ] {
        assert_eq!(parse(&bytes), Err(Error::Malformed), "{bytes:?}");
    }
}

#[test]
fn length_is_bounded() {
    let line = format!("PROXY UNKNOWN {}", "x".repeat(200));
    assert_eq!(parse(line.as_bytes()), Err(Error::TooLong));
    assert_eq!(parse(&line.as_bytes()[..106]), Ok(None));
    // Known from the first 16 bytes.
    assert_eq!(parse(&binary(1, 0x11, &[0; LONGEST_REST + 1])[..FIXED]), Err(Error::TooLong));
}
