#!/usr/bin/env python3
"""power_cut.py MOUNTPOINT: waits for a line, then stops the ext4 file system at once, flushing nothing."""
import fcntl, os, struct, sys

EXT4_IOC_SHUTDOWN = 0x8004587D
NO_LOG_FLUSH = struct.pack("I", 2)

directory = os.open(sys.argv[1], os.O_RDONLY)
print("ready", flush=True)
sys.stdin.readline()
fcntl.ioctl(directory, EXT4_IOC_SHUTDOWN, NO_LOG_FLUSH)
print("cut", flush=True)
