// A capture: the files that a scan read, in a tar archive that any tool opens (POSIX.1-1988 ustar).
//
// Written: entries in natural order, owner 0, time 0, so the same machine gives the same bytes. Read: also what GNU tar,
// busybox and bsdtar write (GNU long names, pax `path` and `linkpath`). A directory is what has entries below it, or an
// entry of its own. Links are not followed: a capture holds each file under the path by which it was read.
// An archive is not trusted: sizes, checksums and numbers of entries are checked before anything is kept.
// Held by tests/archive_test.cc.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "backends/intake/machine_files.h"

namespace ioplan::intake {

enum class EntryKind : std::uint8_t { file, link, directory };

struct Entry {
  EntryKind kind = EntryKind::file;
  std::string content;  // of a file; the target of a link

  friend bool operator==(const Entry&, const Entry&) = default;
};

// Entries by absolute path.
using Entries = std::map<std::string, Entry>;

// Errors: a path or target that ustar cannot hold (more than 255 or 100 bytes).
Result<std::string> write_archive(const Entries& entries);

// `name` is the file's name in errors. Errors: no tar, cut short, a wrong checksum, more than a machine has.
Result<Entries> read_archive(std::string_view archive, const std::string& name);

// Answers from entries.
std::unique_ptr<MachineFiles> files_of(Entries entries);

// Passes questions on and keeps what was answered. `entries` and `files` outlive it.
std::unique_ptr<MachineFiles> recorder(MachineFiles& files, Entries& entries);

}  // namespace ioplan::intake
