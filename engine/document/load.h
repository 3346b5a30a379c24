// Documents -> Request: the one door through which a user's files come in.
//
// Files hold YAML or JSON, one or several documents each, in any order; the result does not depend on that order, nor
// on the order of keys, devices, units, VMs or rules. Everything is strict (see README.md for every key and error);
// references are resolved, so a Request that comes out of here names only what exists. Errors carry file:line:col.
// No exception escapes. Held by tests/document_test.cc.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "engine/base/error.h"
#include "engine/model/request.h"

namespace ioplan {

class Tree;

// Where the facts of a Request were written, for those who print them. Shares the parsed files; cheap to copy.
class Sources {
 public:
  Sources() = default;
  explicit Sources(std::vector<std::shared_ptr<const Tree>> trees) : trees_(std::move(trees)) {}

  // The place of something in the documents of `kind`; a Place without a file when nothing fits. `key` is a path,
  // `needs.dirty_tracking`; where the key was not written, the place of the entry it would be in.
  //   Host            id: a unit, a device, `kernel` or "" (the document); key: a key or fact of it (`ecap`, `idr1`)
  //   VirtualMachine  id: the VM's name; key: a path, or the host id, mdev UUID or name of one of its devices
  //   Policy          id: a rule's name, or "" (the document); key: a path
  Place find(std::string_view kind, std::string_view id, std::string_view key = {}) const;

  // The names of the files, in the order given.
  std::vector<std::string> files() const;

 private:
  std::vector<std::shared_ptr<const Tree>> trees_;
};

struct Loaded {
  Request request;
  Sources sources;
};

// A document's text with the name that errors give to it.
struct NamedText {
  std::string name;
  std::string text;
};

// Reads one Host, any number of VirtualMachines and at most one Policy (the default Policy when there is none).
// Errors: everything that README.md lists; a Plan among the files is refused.
Result<Loaded> load(std::span<const std::string> files);

// The same for texts that are already in memory.
Result<Loaded> load_texts(std::span<const NamedText> texts);
Result<Loaded> load_text(std::string name, std::string text);

// Planning needs a VM: an error when `loaded` has none.
Result<void> require_vm(const Loaded& loaded);

// The text of a file, at most 64 MiB. Errors: missing, unreadable, a directory, too large, empty.
Result<std::string> read_text_file(const std::string& path);

}  // namespace ioplan
