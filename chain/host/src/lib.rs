//! The kernel side: bpf system calls, links, pins, interfaces, transactions.
