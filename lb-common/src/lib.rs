//! What crosses between the kernel and userspace.
#![no_std]
