"""The guest owner's side of a launch: what to expect, whether it was measured, and how to send secrets.

- `expect`: what the owner expects of a launch, and whether a measurement bears it out;
- `seal`: reading secrets and sealing them for a guest whose measurement was verified;
- `session`: the session that hands the keys to one platform, in sevctl's files;
- `qmp`: asking a guest's QMP server for its measurement, and handing it secrets;
- `errors`: the one error of this package.

The owner never needs the host: everything here is computed from the owner's own images and keys.
"""
