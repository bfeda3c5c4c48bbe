//! BTF: types read from, and written to, the kernel's format (Documentation/bpf/btf.rst).
