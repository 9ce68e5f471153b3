//! The XDP program of the switch's ports: it passes everything. A veth whose peer sends by `XDP_TX` needs one: GRO alone
//! starts NAPI too, but then the kernel wakes it for ordinary packets only (`veth_xdp_flush` looks for a program), and
//! 256 packets by `XDP_TX` in a row block the link for ever. Made here byte by byte, so that the lab needs no compiler.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};

use super::netns;

/// `r0 = XDP_PASS; exit`.
const CODE: [u8; 16] = [0xb7, 0, 0, 0, 2, 0, 0, 0, 0x95, 0, 0, 0, 0, 0, 0, 0];
const LICENSE: &[u8] = b"GPL\0";
const NAMES: &[u8] = b"\0xdp\0license\0.symtab\0.strtab\0pass\0";

/// Puts the program on `interface` of the namespace `namespace`, in the driver. `dir` is for its file.
pub(super) fn pass_all(namespace: &str, interface: &str, dir: &Path) -> Result<()> {
    let file = dir.join("pass.bpf.o");
    write_object(&file, &CODE)?;
    netns::ip(namespace, &format!("link set dev {interface} xdpdrv obj {} sec xdp\n", file.display()))
}

/// Writes an object file with one program, in the section `xdp`: these instructions.
pub(super) fn write_object(file: &Path, code: &[u8]) -> Result<()> {
    fs::write(file, object(code)).with_context(|| format!("writing {}", file.display()))
}

/// A section: offset of its name in [`NAMES`], type, flags, content, linked section, entry size.
struct Section(u32, u32, u64, Vec<u8>, u32, u64);

/// The object file as `ip` (libbpf) loads it: ELF64, little-endian, machine BPF.
fn object(code: &[u8]) -> Vec<u8> {
    // SHT_PROGBITS 1, SHT_SYMTAB 2, SHT_STRTAB 3; SHF_WRITE 1, SHF_ALLOC 2, SHF_EXECINSTR 4.
    let sections = [
        Section(1, 1, 6, code.to_vec(), 0, 0),
        Section(5, 1, 3, LICENSE.to_vec(), 0, 0),
        Section(13, 2, 0, symbols(code.len()), 4, 24),
        Section(21, 3, 0, NAMES.to_vec(), 0, 0),
    ];
    let mut contents = Vec::new();
    let mut headers = vec![0; 64];
    for Section(name, kind, flags, content, link, entry) in sections {
        let place = 64 + contents.len() as u64;
        let info = u32::from(kind == 2); // index of the first global symbol
        headers.extend([name, kind].iter().flat_map(|word| word.to_le_bytes()));
        headers.extend([flags, 0, place, content.len() as u64].iter().flat_map(|word| word.to_le_bytes()));
        headers.extend([link, info].iter().flat_map(|word| word.to_le_bytes()));
        headers.extend([8, entry].iter().flat_map(|word| word.to_le_bytes()));
        contents.extend(content);
        contents.resize(contents.len().next_multiple_of(8), 0);
    }
    // ELFCLASS64, ELFDATA2LSB, version 1; ET_REL, EM_BPF; five section headers of 64 bytes, the fourth has the names.
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    file.extend([1_u16, 247].iter().flat_map(|half| half.to_le_bytes()));
    file.extend(1_u32.to_le_bytes());
    file.extend([0, 0, 64 + contents.len() as u64].iter().flat_map(|word| word.to_le_bytes()));
    file.extend(0_u32.to_le_bytes());
    file.extend([64_u16, 0, 0, 64, 5, 4].iter().flat_map(|half| half.to_le_bytes()));
    file.extend(contents);
    file.extend(headers);
    file
}

/// The empty first symbol, and the global function `pass` at the start of section 1.
fn symbols(len: usize) -> Vec<u8> {
    let mut symbols = vec![0; 24];
    symbols.extend(29_u32.to_le_bytes());
    symbols.extend([0x12, 0, 1, 0]);
    symbols.extend([0, len as u64].iter().flat_map(|word| word.to_le_bytes()));
    symbols
}

#[cfg(test)]
mod tests {
    use super::{CODE, NAMES, object};

    #[test]
    fn names_stand_where_the_headers_say() {
        for (at, name) in [(1, "xdp"), (5, "license"), (13, ".symtab"), (21, ".strtab"), (29, "pass")] {
            assert!(NAMES[at..].starts_with(name.as_bytes()) && NAMES[at + name.len()] == 0, "{name}");
        }
        assert_eq!(object(&CODE).len(), 64 + 16 + 8 + 48 + 40 + 5 * 64);
    }
}
