"""A stub of AMD SEV-SNP for sevplug: what a guest's launch digest would be, and the bits that say SNP is active.

It gives no security, and it runs no SNP guest: there is no RMP, no VMGEXIT and no attestation report.
"""
