//! BPF map state as typed values: codec, import, export.
