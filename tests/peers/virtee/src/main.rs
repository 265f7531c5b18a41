// SPDX-License-Identifier: GPL-2.0-or-later
//! What the virtee "sev" crate does with the files it is given; nothing here computes anything itself.
//!
//!   verify CHAIN          PDH || PEK || OCA || CEK || ASK || ARK, as `sevctl export --full` writes it
//!   session PDH POLICY OUT   as `sevctl session`, but raw: OUT/tik, OUT/tek, OUT/godh, OUT/session
//!   secret TIK TEK POLICY MAJOR MINOR BUILD DIGEST MEASUREMENT TABLE OUT   verify, then seal: OUT/header, OUT/payload
//!   report CHAIN REPORT   the attestation report, by the chain's PEK

use std::{env, error::Error, fs, path::Path, slice};

use openssl::{bn::BigNum, ecdsa::EcdsaSig};
use sev::{
    certs::sev::{ca, sev as platform, Chain, Verifiable},
    firmware::host::{Build, LegacyAttestationReport, Version},
    launch::sev::{HeaderFlags, Measurement, Policy},
    parser::{Decoder, Encoder},
    session::Session,
};

type Outcome = Result<(), Box<dyn Error>>;

fn bytes_of<T>(value: &T) -> &[u8] {
    // Plain structures of the wire format, as sevctl writes them.
    unsafe { slice::from_raw_parts(value as *const T as *const u8, size_of::<T>()) }
}

fn verify(chain: &str) -> Outcome {
    let data = fs::read(chain)?;
    let mut reader = &data[..];
    let sev = platform::Chain::decode(&mut reader, ())?;
    let ca = ca::Chain::decode(&mut reader, ())?;
    Chain { ca, sev }.verify()?;
    Ok(())
}

fn session(pdh: &str, policy: u32, out: &Path) -> Outcome {
    let session = Session::try_from(Policy::from(policy))?;
    let pdh = platform::Certificate::decode(&mut fs::File::open(pdh)?, ())?;
    let start = session.start_pdh(pdh).map_err(|error| format!("{error:?}"))?;
    fs::write(out.join("tik"), &session.tik[..])?;
    fs::write(out.join("tek"), &session.tek[..])?;
    fs::write(out.join("godh"), bytes_of(&start.cert))?;
    fs::write(out.join("session"), bytes_of(&start.session))?;
    Ok(())
}

fn secret(arguments: &[String]) -> Outcome {
    let [tik, tek, policy, major, minor, build, digest, measurement, table, out] = arguments else {
        return Err("secret: expected ten arguments".into());
    };
    let mut session = Session::try_from(Policy::from(policy.parse::<u32>()?))?;
    session.tik.copy_from_slice(&fs::read(tik)?);
    session.tek.copy_from_slice(&fs::read(tek)?);
    let build = Build {
        version: Version { major: major.parse()?, minor: minor.parse()? },
        build: build.parse()?,
    };
    let measurement = Measurement::decode(&mut &fs::read(measurement)?[..], ())?;
    let verified = session.verify(&fs::read(digest)?, build, measurement)?;
    let sealed = verified.secret(HeaderFlags::default(), &fs::read(table)?).map_err(|error| format!("{error:?}"))?;
    let mut header = Vec::new();
    sealed.encode(&mut header, ())?;
    let payload = header.split_off(header.len() - sealed.ciphertext.len());
    fs::write(Path::new(out).join("header"), header)?;
    fs::write(Path::new(out).join("payload"), payload)?;
    Ok(())
}

fn report(chain: &str, report: &str) -> Outcome {
    let sev = platform::Chain::decode(&mut fs::File::open(chain)?, ())?;
    let data = fs::read(report)?;
    if data.len() != size_of::<LegacyAttestationReport>() {
        return Err("report: unexpected size".into());
    }
    let mut report = unsafe { (data.as_ptr() as *const LegacyAttestationReport).read_unaligned() };
    // The crate (8.0.0) takes the signature for DER, in which firmware never writes it, so it is put into DER here.
    let number = |at: usize| BigNum::from_slice(&report.signature[at..at + 72].iter().rev().copied().collect::<Vec<u8>>());
    let signature = EcdsaSig::from_private_components(number(0)?, number(72)?)?.to_der()?;
    let space = report.signature.get_mut(..signature.len()).ok_or("report: the signature is no ECDSA signature")?;
    space.copy_from_slice(&signature);
    (&sev.pek, &report).verify()?;
    Ok(())
}

fn main() -> Outcome {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words[..] {
        ["verify", chain] => verify(chain),
        ["session", pdh, policy, out] => session(pdh, policy.parse()?, Path::new(out)),
        ["secret", ..] => secret(&arguments[1..]),
        ["report", chain, file] => report(chain, file),
        _ => Err("usage: virtee-peer verify|session|secret|report ...".into()),
    }
}
