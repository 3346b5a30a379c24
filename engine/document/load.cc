#include "engine/document/load.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>

#include "engine/base/text.h"
#include "engine/document/header.h"
#include "engine/document/host_document.h"
#include "engine/document/node.h"
#include "engine/document/policy_document.h"
#include "engine/document/reader.h"
#include "engine/document/vm_document.h"

namespace ioplan {

namespace {

using Trees = std::vector<std::shared_ptr<const Tree>>;

// --- files ---

class FileDescriptor {
 public:
  explicit FileDescriptor(int fd) : fd_(fd) {}
  FileDescriptor(const FileDescriptor&) = delete;
  FileDescriptor& operator=(const FileDescriptor&) = delete;
  ~FileDescriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

tl::unexpected<Error> file_failure(const std::string& path, std::string message, std::string help,
                                   int errno_value = 0) {
  return tl::make_unexpected(Error{std::move(message), std::move(help), Place{path, 0, 0}, errno_value});
}

tl::unexpected<Error> too_large(const std::string& path) {
  return file_failure(path, "the file is larger than 64MiB",
                      "split it into several files, or check that it is a document");
}

std::string advice_for_errno(int error) {
  if (error == ENOENT) return "check the path";
  if (error == EACCES) return "check who may read the file";
  return {};
}

// What can be known without reading.
Result<void> check_file(const std::string& path, const struct stat& status) {
  if (S_ISDIR(status.st_mode)) {
    return file_failure(path, fmt::format("{} is a directory", in_backticks(path)), "name the files in it");
  }
  if (!S_ISREG(status.st_mode)) return {};
  if (static_cast<std::size_t>(status.st_size) > kMaxFileBytes) return too_large(path);
  if (status.st_size == 0) {
    return file_failure(path, "the file is empty", "write a document that starts with `apiVersion: ioplan/v1`");
  }
  return {};
}

Result<std::string> read_all(const std::string& path, const FileDescriptor& file, std::size_t expected) {
  std::string text;
  std::size_t used = 0;
  for (;;) {
    text.resize(
        std::max({used + 1, expected + 1, std::min(used * 2, used + (std::size_t{1} << 20)), std::size_t{4096}}));
    const ssize_t got = ::read(file.get(), text.data() + used, text.size() - used);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) {
      const int error = errno;
      return file_failure(path, fmt::format("cannot read {}: {}", in_backticks(path), std::strerror(error)),
                          advice_for_errno(error), error);
    }
    if (got == 0) break;
    used += static_cast<std::size_t>(got);
    if (used > kMaxFileBytes) return too_large(path);
  }
  text.resize(used);
  return text;
}

// --- documents ---

// The documents of all files, sorted out by kind.
struct Documents {
  std::vector<Node> hosts, vms, policies;
};

std::string quoted_files(const Trees& trees) {
  std::string text;
  for (const auto& tree : trees) text += (text.empty() ? "" : ", ") + in_backticks(tree->name());
  return text;
}

Documents sort_out(Reader& reader, const Trees& trees) {
  Documents documents;
  for (const auto& tree : trees) {
    for (const Node& root : tree->documents()) {
      const DocumentKind kind = read_header(reader, root);
      if (!reader.ok()) return documents;
      switch (kind) {
        case DocumentKind::host:
          documents.hosts.push_back(root);
          break;
        case DocumentKind::virtual_machine:
          documents.vms.push_back(root);
          break;
        case DocumentKind::policy:
          documents.policies.push_back(root);
          break;
        case DocumentKind::plan:
          reader.fail(root, "a Plan is not an input here", "name only Host, VirtualMachine and Policy documents");
          return documents;
      }
    }
  }
  return documents;
}

void at_most_one(Reader& reader, std::string_view kind, const std::vector<Node>& roots) {
  if (roots.size() < 2) return;
  reader.fail(roots[1], fmt::format("two {} documents; the first is at {}", kind, to_text(roots[0].place())),
              fmt::format("name one {}", kind));
}

// Before anything else of a VM: two of one name would otherwise be reported as one device given twice.
void check_vm_names(Reader& reader, const std::vector<Node>& roots) {
  std::map<std::string_view, Node> names;
  for (const Node& root : roots) {
    const Node name = root.find("name");
    if (!name || !name.is_scalar()) continue;
    const auto [it, added] = names.try_emplace(name.text(), root);
    if (!added) return fail_duplicate(reader, "VMs with the name", name.text(), it->second, root);
  }
}

void read_vms(Reader& reader, const std::vector<Node>& roots, Request& request) {
  Assignments assignments(request.host);
  for (const Node& root : roots) {
    if (reader.ok()) request.vms.push_back(read_vm(reader, root, request.host, assignments));
  }
  std::ranges::sort(request.vms, natural_less, &VirtualMachine::name);
}

Result<Loaded> load_trees(Trees trees) {
  Reader reader;
  const Documents documents = sort_out(reader, trees);
  at_most_one(reader, "Host", documents.hosts);
  at_most_one(reader, "Policy", documents.policies);
  check_vm_names(reader, documents.vms);
  if (!reader.ok()) return tl::make_unexpected(reader.error());
  if (documents.hosts.empty()) {
    return failure("no Host document in " + quoted_files(trees), "name a file with a document of `kind: Host`");
  }
  Request request;
  request.host = read_host(reader, documents.hosts[0]);
  if (reader.ok()) read_vms(reader, documents.vms, request);
  if (reader.ok() && !documents.policies.empty()) {
    request.policy = read_policy(reader, documents.policies[0], request.host);
  }
  if (!reader.ok()) return tl::make_unexpected(reader.error());
  return Loaded{std::move(request), Sources(std::move(trees))};
}

Result<void> add_tree(Trees& trees, std::string name, std::string text) {
  if (text.size() > kMaxFileBytes) return too_large(name);
  auto tree = std::make_shared<Tree>(std::move(name), std::move(text));
  if (auto parsed = parse(*tree); !parsed) return parsed;
  trees.push_back(std::move(tree));
  return {};
}

}  // namespace

Result<std::string> read_text_file(const std::string& path) {
  const FileDescriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status {};
  if (file.get() < 0 || ::fstat(file.get(), &status) != 0) {
    const int error = errno;
    return file_failure(path, fmt::format("cannot open {}: {}", in_backticks(path), std::strerror(error)),
                        advice_for_errno(error), error);
  }
  if (auto checked = check_file(path, status); !checked) return tl::make_unexpected(checked.error());
  auto text = read_all(path, file, S_ISREG(status.st_mode) ? static_cast<std::size_t>(status.st_size) : 0);
  if (text && text->empty()) {
    return file_failure(path, "the file is empty", "write a document that starts with `apiVersion: ioplan/v1`");
  }
  return text;
}

Result<Loaded> load(std::span<const std::string> files) {
  if (files.empty())
    return failure("no file to read", "name the files with the Host, VirtualMachine and Policy documents");
  Trees trees;
  for (const std::string& path : files) {
    auto text = read_text_file(path);
    if (!text) return tl::make_unexpected(text.error());
    if (auto added = add_tree(trees, path, std::move(*text)); !added) return tl::make_unexpected(added.error());
  }
  return load_trees(std::move(trees));
}

Result<Loaded> load_texts(std::span<const NamedText> texts) {
  Trees trees;
  for (const NamedText& text : texts) {
    if (auto added = add_tree(trees, text.name, text.text); !added) return tl::make_unexpected(added.error());
  }
  return load_trees(std::move(trees));
}

Result<Loaded> load_text(std::string name, std::string text) {
  Trees trees;
  if (auto added = add_tree(trees, std::move(name), std::move(text)); !added) {
    return tl::make_unexpected(added.error());
  }
  return load_trees(std::move(trees));
}

Result<void> require_vm(const Loaded& loaded) {
  if (!loaded.request.vms.empty()) return {};
  std::string files;
  for (const std::string& name : loaded.sources.files()) files += (files.empty() ? "" : ", ") + in_backticks(name);
  return failure("no VirtualMachine document in " + files, "name a file with a document of `kind: VirtualMachine`");
}

}  // namespace ioplan
