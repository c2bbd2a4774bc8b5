//! The directory, look by look: no thread and no time.
#![allow(clippy::unwrap_used)]

use std::fs;

use rustls::pki_types::CertificateDer;
use tempfile::TempDir;

use super::*;
use crate::tls::test_support::{Pair, provider};

/// A directory with its identities.
struct World {
    dir: TempDir,
    identities: Arc<Identities>,
    directory: Directory,
}

impl World {
    /// With these pairs, of which those in `kept` are defaults.
    fn open(pairs: &[(&str, &Pair)], kept: &[&str]) -> Result<World, (String, Box<IdentityError>)> {
        let dir = tempfile::tempdir().unwrap();
        for (name, pair) in pairs {
            pair.write(dir.path(), name);
        }
        World::open_at(dir, kept)
    }

    fn open_at(dir: TempDir, kept: &[&str]) -> Result<World, (String, Box<IdentityError>)> {
        let identities = Arc::new(Identities::default());
        let kept = kept.iter().map(|&name| name.into()).collect();
        let shared = Arc::clone(&identities);
        let directory = Directory::open(dir.path(), Arc::new(provider()), shared, kept)?;
        Ok(World { dir, identities, directory })
    }

    fn write(&self, file: &str, content: &str) {
        fs::write(self.dir.path().join(file), content).unwrap();
    }

    fn delete(&self, file: &str) {
        fs::remove_file(self.dir.path().join(file)).unwrap();
    }

    /// What is served of a name.
    fn served(&self, name: &str) -> Option<CertificateDer<'static>> {
        self.identities.named(name).map(|identity| identity.cert[0].clone())
    }

    /// Whether the log has the line about a name that cannot be used.
    fn is_told(&self, name: &str) -> bool {
        matches!(self.directory.seen.get(name), Some(Seen::Broken { is_told: true, .. }))
    }
}

#[test]
fn broken_pairs_do_not_keep_others_from_being_served() {
    let (a, b) = (Pair::new("a.test"), Pair::new("b.test"));
    let dir = tempfile::tempdir().unwrap();
    a.write(dir.path(), "a");
    b.write(dir.path(), "b");
    for (file, content) in [
        ("b.key", a.key_pem.as_str()),
        ("c.crt", "text"),
        ("alone.key", a.key_pem.as_str()),
        (".hidden.crt", "text"),
        ("readme.txt", "text"),
    ] {
        fs::write(dir.path().join(file), content).unwrap();
    }
    fs::create_dir(dir.path().join("d.crt")).unwrap();
    let world = World::open_at(dir, &["a"]).unwrap();
    assert_eq!(world.served("a"), Some(a.certificate));
    for name in ["b", "c", "d"] {
        assert!(world.served(name).is_none() && world.is_told(name), "{name}");
    }
    assert_eq!(world.directory.seen.len(), 4);
}

#[test]
fn a_default_must_be_there_and_whole() {
    let a = Pair::new("a.test");
    let Err((name, error)) = World::open(&[("a", &a)], &["a", "b"]) else { panic!("it opens") };
    assert_eq!(name, "b");
    assert!(matches!(*error, IdentityError::Read { .. }), "{error}");
}

#[test]
fn a_missing_directory_is_no_fault_without_defaults() {
    let identities = Arc::new(Identities::default());
    let nowhere = tempfile::tempdir().unwrap().path().join("nowhere");
    let shared = Arc::clone(&identities);
    let mut directory =
        Directory::open(&nowhere, Arc::new(provider()), shared, BTreeSet::new()).unwrap();
    assert!(directory.is_fault_told);
    fs::create_dir_all(&nowhere).unwrap();
    Pair::new("a.test").write(&nowhere, "a");
    directory.look();
    assert!(identities.named("a").is_some() && !directory.is_fault_told);
    fs::remove_dir_all(&nowhere).unwrap();
    directory.look();
    directory.look();
    assert!(identities.named("a").is_some(), "nothing is known of it");
}

#[test]
fn what_changes_is_loaded_at_the_next_look() {
    let (old, new, third) = (Pair::new("a.test"), Pair::new("a.test"), Pair::new("b.test"));
    let mut world = World::open(&[("a", &old)], &["a"]).unwrap();
    new.write(world.dir.path(), "a");
    third.write(world.dir.path(), "b");
    assert_eq!(world.served("a"), Some(old.certificate));
    world.directory.look();
    assert_eq!(world.served("a"), Some(new.certificate));
    assert_eq!(world.served("b"), Some(third.certificate));
}

#[test]
fn a_replacement_that_is_being_written_is_no_fault() {
    let (old, new) = (Pair::new("a.test"), Pair::new("a.test"));
    let mut world = World::open(&[("a", &old)], &[]).unwrap();
    let half = &new.certificate_pem[..new.certificate_pem.len() / 2];
    for content in [half, &new.certificate_pem] {
        world.write("a.crt", content);
        world.directory.look();
        assert_eq!(world.served("a").as_ref(), Some(&old.certificate));
        assert!(!world.is_told("a"));
    }
    world.write("a.key", &new.key_pem);
    world.directory.look();
    assert_eq!(world.served("a"), Some(new.certificate));
}

#[test]
fn what_stays_broken_is_told_once() {
    let old = Pair::new("a.test");
    let mut world = World::open(&[("a", &old)], &["a"]).unwrap();
    world.write("a.crt", "text");
    world.directory.look();
    assert!(!world.is_told("a"));
    world.directory.look();
    assert!(world.is_told("a"));
    world.directory.look();
    assert!(world.is_told("a"), "a told fault stays a told one");
    world.write("a.crt", "other text");
    world.directory.look();
    assert!(!world.is_told("a"), "it is another fault");
    assert_eq!(world.served("a"), Some(old.certificate.clone()));
    old.write(world.dir.path(), "a");
    world.directory.look();
    assert!(matches!(world.directory.seen["a"], Seen::Served(_)));
}

#[test]
fn what_is_gone_twice_is_forgotten_but_for_defaults() {
    let (a, b) = (Pair::new("a.test"), Pair::new("b.test"));
    let mut world = World::open(&[("a", &a), ("b", &b)], &["a"]).unwrap();
    for file in ["a.crt", "a.key", "b.crt", "b.key"] {
        world.delete(file);
    }
    world.directory.look();
    assert!(world.served("a").is_some() && world.served("b").is_some());
    for _ in 0..3 {
        world.directory.look();
        assert!(world.served("a").is_some() && world.served("b").is_none());
    }
    b.write(world.dir.path(), "b");
    b.write(world.dir.path(), "a");
    world.directory.look();
    assert_eq!(
        (world.served("a"), world.served("b")),
        (Some(b.certificate.clone()), Some(b.certificate))
    );
}

#[test]
fn the_thread_ends_with_its_loader() {
    let world = World::open(&[], &[]).unwrap();
    drop(Loader::start(world.directory).unwrap());
    // Only the thread had another one.
    assert_eq!(Arc::strong_count(&world.identities), 1);
}

#[test]
fn of_too_many_the_first_are_served_and_the_defaults() {
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
    let names = set(&["a", "b", "c", "d", "e"]);
    assert_eq!(within(2, names.clone(), &set(&["d", "gone"])), set(&["a", "b", "d"]));
    assert_eq!(within(5, names.clone(), &set(&[])), names);
}
