//! What the packet programs share: packet access, context, reasons, next hop.
#![no_std]
