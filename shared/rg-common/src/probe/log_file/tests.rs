//! Logs in real files, rotated in every usual way.

use super::*;
use std::fs;
use std::io::Write;

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Place {
        let path = std::env::temp_dir().join(format!("rg-log-{}-{name}", std::process::id()));
        fs::create_dir_all(&path).expect("a directory");
        Place(path)
    }

    fn log(&self) -> PathBuf {
        self.0.join("app.log")
    }

    fn append(&self, text: &str) {
        let mut file = File::options()
            .append(true)
            .create(true)
            .open(self.log())
            .expect("the log");
        file.write_all(text.as_bytes()).expect("written");
    }

    fn read(&self, cursor: &mut Option<FileCursor>) -> (Vec<String>, FileReading) {
        let mut lines = Vec::new();
        let reading = read_bounded(&self.log(), cursor.as_ref(), 4096, &mut |line| {
            lines.push(String::from_utf8_lossy(line.text).into_owned());
        })
        .expect("a reading");
        *cursor = Some(reading.cursor.clone());
        (lines, reading)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("removed");
    }
}

#[test]
fn what_cannot_be_read_is_an_error_and_no_empty_log() {
    let place = Place::new("none");
    let failure = read(&place.log(), None, &mut |_| {}).unwrap_err();
    assert!(
        failure.to_string().starts_with("cannot read the log /"),
        "{failure}"
    );
    let failure = read(&place.0, None, &mut |_| {}).unwrap_err();
    assert!(failure.to_string().ends_with(" is not a file"), "{failure}");
}

#[test]
fn each_line_comes_once_whichever_way_the_log_is_rotated() {
    let place = Place::new("rotated");
    let mut cursor = None;
    place.append("one\ntwo\nhal");
    assert_eq!(place.read(&mut cursor).0, ["one", "two"]);
    place.append("f\n");
    assert_eq!(place.read(&mut cursor).0, ["half"]);
    assert!(place.read(&mut cursor).0.is_empty());
    // Renamed, its last line written after the look.
    place.append("last of the first\n");
    fs::rename(place.log(), place.0.join("app.log.1")).unwrap();
    place.append("first of the second\n");
    let (lines, reading) = place.read(&mut cursor);
    assert_eq!(lines, ["last of the first", "first of the second"]);
    assert!(!reading.lost);
    // Copied and cut.
    place.append("last of the second\n");
    fs::copy(place.log(), place.0.join("app.log.2")).unwrap();
    File::options()
        .write(true)
        .open(place.log())
        .unwrap()
        .set_len(0)
        .unwrap();
    place.append("third\n");
    let (lines, reading) = place.read(&mut cursor);
    assert_eq!(lines, ["last of the second", "third"]);
    assert!(!reading.lost);
    // Rotated and compressed at once: what was not read yet is lost, and that is said.
    place.append("never seen\n");
    fs::remove_file(place.log()).unwrap();
    place.append("fourth, which is longer\n");
    let (lines, reading) = place.read(&mut cursor);
    assert_eq!(lines, ["fourth, which is longer"]);
    assert!(reading.lost);
}

#[test]
fn bytes_are_bounded_and_what_is_left_out_is_said() {
    let place = Place::new("bounded");
    let mut cursor = None;
    place.append("start\n");
    place.read(&mut cursor);
    for n in 0..1000 {
        place.append(&format!("line {n:04}\n"));
    }
    let (lines, reading) = place.read(&mut cursor);
    assert_eq!(reading.left_out, 10_000 - 4096);
    assert_eq!(lines.last().unwrap(), "line 0999");
    assert_eq!(lines.len(), 409);
    assert!(place.read(&mut cursor).0.is_empty());
}

#[test]
fn an_endless_line_is_cut() {
    let place = Place::new("endless");
    let mut text = vec![b'x'; 2 * LINE_BYTES_MAX];
    text.extend_from_slice(b"\nnext\n");
    fs::write(place.log(), &text).unwrap();
    let mut lengths = Vec::new();
    let reading = read(&place.log(), None, &mut |line| {
        lengths.push(line.text.len())
    })
    .unwrap();
    assert_eq!(lengths, [LINE_BYTES_MAX, 4]);
    assert_eq!(reading.cursor.offset, text.len() as u64);
}
