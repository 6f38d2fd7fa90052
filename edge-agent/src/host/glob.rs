//! Globs over paths, and a walk along them that looks at a limited number of paths.
//!
//! `*`, `?`, `[..]` and `{a,b}` are within a name, and match names that begin with a dot too; `**` is any number of
//! directories, once in a glob. Links are followed where a directory is named, never where one is matched.

use std::{
    ffi::{OsStr, OsString},
    fs::Metadata,
    io,
    path::{Path, PathBuf},
};

use globset::{GlobBuilder, GlobMatcher, GlobSet, GlobSetBuilder};

/// An absolute glob.
#[derive(Clone, Debug)]
pub(super) struct Glob {
    pub text: String,
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
enum Step {
    Name(OsString),
    Pattern(GlobMatcher),
    /// `**`
    Below,
}

impl Step {
    fn fits(&self, name: &OsStr) -> bool {
        match self {
            Self::Name(own) => own == name,
            Self::Pattern(pattern) => pattern.is_match(name),
            Self::Below => true,
        }
    }
}

impl Glob {
    pub(super) fn new(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("`{text}` of the policy {why}");
        let relative = text.strip_prefix('/').ok_or_else(|| wrong("is not an absolute path"))?;
        let mut steps = Vec::new();
        for name in relative.split('/').filter(|name| !name.is_empty()) {
            steps.push(match name {
                "." | ".." => return Err(wrong("has `.` or `..` in it")),
                "**" => Step::Below,
                name if !name.contains(['*', '?', '[', '{', '\\']) => Step::Name(name.into()),
                pattern => Step::Pattern(compile(pattern).map_err(|why| wrong(&why))?.compile_matcher()),
            });
        }
        if steps.iter().filter(|step| matches!(step, Step::Below)).count() > 1 {
            return Err(wrong("has `**` more than once"));
        }
        Ok(Self { text: text.to_owned(), steps })
    }

    /// True when it is one path.
    pub(super) fn is_literal(&self) -> bool {
        self.steps.iter().all(|step| matches!(step, Step::Name(_)))
    }
}

fn compile(glob: &str) -> Result<globset::Glob, String> {
    GlobBuilder::new(glob).literal_separator(true).build().map_err(|error| format!("is no glob: {}", error.kind()))
}

/// What is left out.
#[derive(Clone, Debug)]
pub(super) struct Except {
    paths: GlobSet,
    /// Directories of which all is left out, so that the walk need not enter.
    trees: GlobSet,
}

impl Except {
    pub(super) fn new(globs: &[String]) -> Result<Self, String> {
        let (mut paths, mut trees) = (GlobSetBuilder::new(), GlobSetBuilder::new());
        for glob in globs {
            let wrong = |why| format!("`{glob}` of the policy {why}");
            paths.add(compile(glob).map_err(wrong)?);
            if let Some(tree) = glob.strip_suffix("/**") {
                trees.add(compile(tree).map_err(wrong)?);
            }
        }
        let build = |set: GlobSetBuilder| set.build().map_err(|error| error.to_string());
        Ok(Self { paths: build(paths)?, trees: build(trees)? })
    }
}

/// A walk along several globs.
#[derive(Debug)]
pub(super) struct Walk<'a, Visit> {
    except: &'a Except,
    visit: Visit,
    /// So many paths may still be looked at.
    pub left: usize,
    /// True when that was not enough.
    pub was_cut: bool,
    /// The directories that could not be read: how many, and the first.
    pub denied: usize,
    pub first_denied: Option<(PathBuf, io::Error)>,
}

impl<'a, Visit: FnMut(&Path, io::Result<Metadata>)> Walk<'a, Visit> {
    pub(super) fn new(except: &'a Except, max: usize, visit: Visit) -> Self {
        Self { except, visit, left: max, was_cut: false, denied: 0, first_denied: None }
    }

    /// Visits what a glob matches, in the order of names; for a path without wildcards, whatever becomes of it.
    pub(super) fn along(&mut self, glob: &Glob) {
        if glob.is_literal() {
            let path = Path::new(&glob.text);
            (self.visit)(path, path.symlink_metadata());
        } else {
            self.descend(Path::new("/"), &glob.steps);
        }
    }

    fn descend(&mut self, at: &Path, steps: &[Step]) {
        let Some((step, rest)) = steps.split_first() else { return self.arrive(at) };
        if let Step::Name(name) = step {
            return self.descend(&at.join(name), rest);
        }
        if self.except.trees.is_match(at) {
            return;
        }
        for (name, is_directory) in self.list(at) {
            let path = at.join(&name);
            match (step, rest.split_first()) {
                (Step::Below, None) => self.arrive(&path),
                (Step::Below, Some((next, []))) if next.fits(&name) => self.arrive(&path),
                (Step::Below, Some((next, rest))) if is_directory && next.fits(&name) => self.descend(&path, rest),
                (Step::Pattern(_), None) if step.fits(&name) => self.arrive(&path),
                (Step::Pattern(_), Some(_)) if is_directory && step.fits(&name) => self.descend(&path, rest),
                _ => {}
            }
            if is_directory && matches!(step, Step::Below) {
                self.descend(&path, steps);
            }
        }
    }

    /// The names in a directory, and whether each is one itself.
    fn list(&mut self, directory: &Path) -> Vec<(OsString, bool)> {
        let entries = match directory.read_dir() {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Vec::new();
            }
            Err(error) => {
                self.denied += 1;
                self.first_denied.get_or_insert((directory.to_owned(), error));
                return Vec::new();
            }
        };
        let mut names = Vec::new();
        for entry in entries.flatten() {
            let Some(left) = self.left.checked_sub(1) else {
                self.was_cut = true;
                break;
            };
            self.left = left;
            names.push((entry.file_name(), entry.file_type().is_ok_and(|kind| kind.is_dir())));
        }
        names.sort_unstable();
        names
    }

    fn arrive(&mut self, path: &Path) {
        if self.except.paths.is_match(path) {
            return;
        }
        match path.symlink_metadata() {
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            seen => (self.visit)(path, seen),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn walk(root: &Path, glob: &str, except: &[&str], max: usize) -> (Vec<String>, bool) {
        let except: Vec<_> = except.iter().map(|glob| format!("{}{glob}", root.display())).collect();
        let except = Except::new(&except).unwrap();
        let mut seen = Vec::new();
        let mut walk = Walk::new(&except, max, |path: &Path, _| {
            seen.push(path.strip_prefix(root).unwrap().display().to_string());
        });
        walk.along(&Glob::new(&format!("{}{glob}", root.display())).unwrap());
        let was_cut = walk.was_cut;
        (seen, was_cut)
    }

    #[test]
    fn globs_match_as_they_say() {
        let dir = tempfile::tempdir().unwrap();
        for file in ["a.py", "b/c.py", "b/d/e.py", "b/d/.env", "b/f.txt", "data/x.py", "data/y/z.py"] {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        std::os::unix::fs::symlink(dir.path().join("b"), dir.path().join("link")).unwrap();
        let none: &[&str] = &[];
        for (glob, except, seen) in [
            ("/**/*.py", none, &["a.py", "b/c.py", "b/d/e.py", "data/x.py", "data/y/z.py"][..]),
            ("/**/*.py", &["/data/**"], &["a.py", "b/c.py", "b/d/e.py"]),
            ("/**/*.py", &["/*/x.py", "/**/z.py"], &["a.py", "b/c.py", "b/d/e.py"]),
            ("/*.py", none, &["a.py"]),
            ("/*/*.{py,txt}", none, &["b/c.py", "b/f.txt", "data/x.py"]),
            ("/b/**", none, &["b/c.py", "b/d", "b/d/.env", "b/d/e.py", "b/f.txt"]),
            ("/**/d/*", none, &["b/d/.env", "b/d/e.py"]),
            ("/**/.env", none, &["b/d/.env"]),
            ("/*/c.py", none, &["b/c.py"]),
            ("/link/*.py", none, &["link/c.py"]),
            ("/lin?", none, &["link"]),
            ("/nothing/*", none, &[]),
            ("/nothing", none, &["nothing"]),
        ] {
            assert_eq!(
                walk(dir.path(), glob, except, 1_000),
                (seen.iter().map(|s| (*s).to_owned()).collect(), false),
                "{glob}"
            );
        }
        assert!(walk(dir.path(), "/**", &[], 3).1, "it says when there is more than it may look at");
    }

    #[test]
    fn what_cannot_be_walked_is_refused() {
        for glob in ["relative/*", "", "/a/**/b/**", "/a/../b", "/a/[", "/a/{b"] {
            assert!(Glob::new(glob).is_err(), "{glob}");
        }
    }

    proptest! {
        /// Whatever stands in a policy.
        #[test]
        fn no_glob_panics(text in "/?[a-z*?\\[\\]{},\\\\!/.-]{0,24}") {
            if let (Ok(glob), Ok(except)) = (Glob::new(&text), Except::new(&[text])) {
                let dir = tempfile::tempdir().unwrap();
                let below = Glob { text: String::new(), steps: glob.steps };
                Walk::new(&except, 10, |_: &Path, _| {}).descend(dir.path(), &below.steps);
            }
        }
    }
}
