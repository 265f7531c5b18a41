"""An emulated SEV platform: the identity and the commands of a chip's firmware, in a folder.

- `root`: the root that all emulated platforms share, with keys that everybody has;
- `identity`: a platform's keys and certificates, and how they are made;
- `store`: keeping them in a file, whole or not at all;
- `firmware`: the firmware's commands and states over a store;
- `randomness`: the same random bytes each time, for tests.

It protects nothing: whoever reads the folder has the platform's keys, and those of its root are in this package.
"""
