"""SEV's formats and formulas, as values and pure functions.

Nothing here needs a machine, a plug-in or the rest of sevplug: the package can be used on its own, by a guest
owner's tool as well as by an emulator. One module for each structure of the SEV API and of the firmware
images that use it:

- `status`, `state`, `policy`, `version`, `errors`: the vocabulary of the SEV firmware;
- `digest`, `measurement`, `keys`: what LAUNCH_MEASURE says, and the keys that vouch for it;
- `secret_table`, `packet`: what LAUNCH_SECRET carries;
- `guid_table`, `hash_table`: what OVMF publishes in its image and what a direct kernel boot adds to it;
- `vmsa`: the processors' state, which SEV-ES measures as well;
- `certificates`, `amd_certificates`, `chain`, `certificate_files`: who vouches for a platform;
- `session`: what LAUNCH_START takes from the owner, the transport keys under the platform's key;
- `report`: what ATTESTATION says, signed by the platform;
- `kdf`, `cipher`, `elliptic`, `rsa`, `algorithms`, `encodings`: what these are made with.

Import the module that is needed; this package imports none of them, so that importing it costs nothing.

Main source: AMD, "Secure Encrypted Virtualization API", publication 55766 ("SEV API" in what follows).
"""
