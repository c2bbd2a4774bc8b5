//! A small disk for the embedded store, which can be filled: a tmpfs. It takes root.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Its size, for mount(8): room for the events of a run, several times over.
const SIZE: &str = "size=512m";

/// Bytes that are written at a time to fill it.
const BALLAST_BYTES: usize = 1 << 20;

/// A small disk, which goes with the value.
#[derive(Debug)]
pub struct Disk(PathBuf);

impl Disk {
    /// Mounts one there.
    ///
    /// # Errors
    ///
    /// It is not permitted, or mount(8) is missing.
    pub fn mount(at: &Path) -> io::Result<Self> {
        let mut mount = Command::new("mount");
        let output = mount.args(["-t", "tmpfs", "-o", SIZE, "forebay-fire"]).arg(at).output()?;
        if output.status.success() {
            return Ok(Disk(at.to_owned()));
        }
        let said = String::from_utf8_lossy(&output.stderr);
        Err(io::Error::other(said.lines().next().unwrap_or("mount failed").to_owned()))
    }

    /// Fills it to the last byte.
    ///
    /// # Errors
    ///
    /// What the system said, but for there being no more room.
    pub fn fill(&self) -> io::Result<()> {
        let mut file = File::create(self.ballast())?;
        let ballast = vec![0; BALLAST_BYTES];
        // The last piece is written as far as it fits.
        loop {
            match file.write(&ballast) {
                Ok(0) => return Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::StorageFull => return Ok(()),
                Err(error) => return Err(error),
            }
        }
    }

    /// Makes room again.
    ///
    /// # Errors
    ///
    /// It was not filled.
    pub fn empty(&self) -> io::Result<()> {
        std::fs::remove_file(self.ballast())
    }

    fn ballast(&self) -> PathBuf {
        self.0.join("ballast")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: whoever is killed may have files open for a moment. What fails is left to who looks after the machine.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}
