//! Views and writers of packet headers, for the programs and, over slices, for user space.
#![no_std]
