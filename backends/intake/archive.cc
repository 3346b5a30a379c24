#include "backends/intake/archive.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <optional>

#include "engine/base/text.h"

namespace ioplan::intake {

namespace {

constexpr std::size_t kBlock = 512;
constexpr std::size_t kMostEntries = 1U << 20;
constexpr std::size_t kMostBytes = std::size_t{1} << 30;

// The header block. Numbers are octal text.
struct Header {
  char name[100];
  char mode[8];
  char uid[8];
  char gid[8];
  char size[12];
  char mtime[12];
  char checksum[8];
  char type;
  char target[100];
  char magic[6];
  char version[2];
  char user[32];
  char group[32];
  char major[8];
  char minor[8];
  char prefix[155];
  char padding[12];
};
static_assert(sizeof(Header) == kBlock);

// The sum of the header's bytes, those of the checksum counted as blanks.
unsigned checksum_of(Header header) {
  std::memset(header.checksum, ' ', sizeof(header.checksum));
  std::array<unsigned char, kBlock> bytes;
  std::memcpy(bytes.data(), &header, kBlock);
  unsigned sum = 0;
  for (unsigned char b : bytes) sum += b;
  return sum;
}

template <std::size_t N>
void put(char (&field)[N], std::string_view text) {
  std::memcpy(field, text.data(), std::min(N, text.size()));
}

template <std::size_t N>
void put_number(char (&field)[N], std::uint64_t value) {
  put(field, fmt::format("{:0{}o}", value, N - 1));
}

template <std::size_t N>
std::string_view text_in(const char (&field)[N]) {
  return {field, strnlen(field, N)};
}

template <std::size_t N>
std::optional<std::uint64_t> number_in(const char (&field)[N]) {
  std::string_view digits = text_in(field);
  while (digits.starts_with(' ')) digits.remove_prefix(1);
  while (digits.ends_with(' ')) digits.remove_suffix(1);
  std::uint64_t value = 0;
  const auto [end, ec] = std::from_chars(digits.data(), digits.data() + digits.size(), value, 8);
  return digits.empty() || ec != std::errc() || end != digits.data() + digits.size() ? std::nullopt : std::optional(value);
}

// ---------------------------------------------------------------- writing

// A name of more than 100 bytes is split at a slash into prefix and name.
bool put_name(Header& header, std::string_view path) {
  if (path.size() <= sizeof(header.name)) {
    put(header.name, path);
    return true;
  }
  const std::size_t slash = path.find('/', path.size() - sizeof(header.name) - 1);
  if (slash == std::string_view::npos || slash > sizeof(header.prefix) || slash + 1 == path.size()) return false;
  put(header.prefix, path.substr(0, slash));
  put(header.name, path.substr(slash + 1));
  return true;
}

char type_of(EntryKind kind) { return kind == EntryKind::file ? '0' : kind == EntryKind::link ? '2' : '5'; }

std::optional<Header> header_of(std::string_view path, const Entry& entry) {
  Header header{};
  const bool is_file = entry.kind == EntryKind::file;
  if (!put_name(header, path)) return std::nullopt;
  if (entry.kind == EntryKind::link && entry.content.size() > sizeof(header.target)) return std::nullopt;
  put_number(header.mode, entry.kind == EntryKind::directory ? 0755 : 0644);
  put_number(header.uid, 0);
  put_number(header.gid, 0);
  put_number(header.size, is_file ? entry.content.size() : 0);
  put_number(header.mtime, 0);
  header.type = type_of(entry.kind);
  if (entry.kind == EntryKind::link) put(header.target, entry.content);
  put(header.magic, "ustar");
  put(header.version, "00");
  put(header.checksum, fmt::format("{:06o}", checksum_of(header)) + std::string("\0 ", 2));
  return header;
}

void append_padded(std::string& archive, std::string_view bytes) {
  archive += bytes;
  archive.resize((archive.size() + kBlock - 1) / kBlock * kBlock);
}

// ---------------------------------------------------------------- reading

// "./sys/class" and "sys/class/" -> "/sys/class"; nothing for paths that climb.
std::optional<std::string> absolute(std::string_view path) {
  std::string clean;
  for (std::size_t start = 0; start <= path.size();) {
    const std::size_t slash = std::min(path.find('/', start), path.size());
    const std::string_view part = path.substr(start, slash - start);
    start = slash + 1;
    if (part.empty() || part == ".") continue;
    if (part == "..") return std::nullopt;
    clean += '/';
    clean += part;
  }
  return clean.empty() ? "/" : clean;
}

class ArchiveReader {
 public:
  ArchiveReader(std::string_view archive, const std::string& name) : archive_(archive), place_{name, 0, 0} {}

  Result<Entries> read() {
    while (at_ + kBlock <= archive_.size()) {
      Header header;
      std::memcpy(&header, archive_.data() + at_, kBlock);
      if (is_end(header)) return std::move(entries_);
      if (auto taken = take(header); !taken) return tl::make_unexpected(taken.error());
    }
    return bad(at_ == 0 ? "is no tar archive" : "is cut short");
  }

 private:
  static bool is_end(const Header& header) { return header.name[0] == '\0' && header.prefix[0] == '\0'; }

  tl::unexpected<Error> bad(std::string_view what) const {
    const bool packed = archive_.starts_with("\x1f\x8b") || archive_.starts_with("\x28\xb5\x2f\xfd") || archive_.starts_with("\xfd" "7zXZ");
    return failure(fmt::format("the archive {}, at byte {}", what, at_),
                   packed ? "it is compressed: unpack it first" : "make it with `ioplan scan --capture FILE.tar`", place_);
  }

  Result<void> take(const Header& header) {
    const auto checksum = number_in(header.checksum);
    if (!checksum || *checksum != checksum_of(header)) return bad(at_ == 0 ? "is no tar archive" : "has a wrong checksum");
    const bool has_content = std::string_view("1256").find(header.type) == std::string_view::npos;
    const auto size = has_content ? number_in(header.size) : std::optional<std::uint64_t>(0);
    if (!size || *size > kMostBytes) return bad("holds a file of an impossible size");
    at_ += kBlock;
    if (*size > archive_.size() - at_) return bad("is cut short");
    const std::string_view content = archive_.substr(at_, *size);
    at_ += (*size + kBlock - 1) / kBlock * kBlock;
    return use(header, content);
  }

  // Long names and pax records are about the entry that follows.
  Result<void> use(const Header& header, std::string_view content) {
    switch (header.type) {
      case 'L': next_path_ = content.substr(0, content.find('\0')); return {};
      case 'K': next_target_ = content.substr(0, content.find('\0')); return {};
      case 'x': return use_pax(content);
      case 'g': return {};
      case '0':
      case '\0': return add(header, {EntryKind::file, std::string(content)});
      case '5': return add(header, {EntryKind::directory, {}});
      case '2': return add(header, {EntryKind::link, std::string(next_target_.empty() ? text_in(header.target) : next_target_)});
      default: next_path_ = next_target_ = {}; return {};  // devices, pipes, hard links: no part of a capture
    }
  }

  // Records of the form "LENGTH KEY=VALUE\n".
  Result<void> use_pax(std::string_view records) {
    while (!records.empty()) {
      std::size_t length = 0;
      const auto [end, ec] = std::from_chars(records.data(), records.data() + records.size(), length);
      const auto digits = static_cast<std::size_t>(end - records.data());
      if (ec != std::errc() || length <= digits + 1 || length > records.size()) return bad("has a bad pax header");
      const std::string_view record = records.substr(digits + 1, length - digits - 2);
      if (record.starts_with("path=")) next_path_ = record.substr(5);
      if (record.starts_with("linkpath=")) next_target_ = record.substr(9);
      records.remove_prefix(length);
    }
    return {};
  }

  Result<void> add(const Header& header, Entry entry) {
    const std::string_view prefix = std::string_view(header.magic, 5) == "ustar" && header.magic[5] == '\0' ? text_in(header.prefix) : "";
    const std::string in_header = (prefix.empty() ? "" : std::string(prefix) + "/") + std::string(text_in(header.name));
    const auto path = absolute(next_path_.empty() ? in_header : next_path_);
    next_path_ = next_target_ = {};
    if (!path) return bad("holds a path that climbs with `..`");
    if (entries_.size() >= kMostEntries) return bad("holds too many entries");
    entries_.insert_or_assign(*path, std::move(entry));
    return {};
  }

  std::string_view archive_;
  Place place_;
  std::size_t at_ = 0;
  std::string_view next_path_, next_target_;
  Entries entries_;
};

// ---------------------------------------------------------------- as files

tl::unexpected<Error> fails_with(int errno_value) { return tl::make_unexpected(Error{{}, {}, {}, errno_value}); }

class EntryFiles final : public MachineFiles {
 public:
  explicit EntryFiles(Entries entries) : entries_(std::move(entries)) {
    for (const auto& [path, entry] : entries_) add_to_parents(path);
  }

  Result<std::string> read(const std::string& path, std::size_t most, const Excerpt& excerpt) override {
    const auto it = entries_.find(path);
    if (it == entries_.end()) return fails_with(ENOENT);
    if (it->second.kind != EntryKind::file) return fails_with(EISDIR);
    return excerpt(std::string_view(it->second.content).substr(0, most));
  }

  Result<std::vector<std::string>> list(const std::string& path) override {
    const auto it = children_.find(path);
    if (it == children_.end()) {
      const auto entry = entries_.find(path);
      if (entry == entries_.end() || entry->second.kind != EntryKind::directory) return fails_with(ENOENT);
      return std::vector<std::string>();
    }
    std::vector<std::string> names(it->second.begin(), it->second.end());
    std::ranges::sort(names, natural_less);
    names.erase(std::unique(names.begin(), names.end()), names.end());
    return names;
  }

  Result<std::string> link(const std::string& path) override {
    const auto it = entries_.find(path);
    if (it == entries_.end() || it->second.kind != EntryKind::link) return fails_with(ENOENT);
    return last_component(it->second.content);
  }

 private:
  // Sorted paths: a parent that has the child already has its own parents too.
  void add_to_parents(std::string_view path) {
    while (path.size() > 1) {
      const std::size_t slash = path.rfind('/');
      const std::string parent(slash == 0 ? "/" : path.substr(0, slash));
      std::vector<std::string>& children = children_[parent];
      const std::string_view child = path.substr(slash + 1);
      if (!children.empty() && children.back() == child) return;
      children.emplace_back(child);
      path = path.substr(0, slash);
    }
  }

  Entries entries_;
  std::map<std::string, std::vector<std::string>> children_;
};

class Recorder final : public MachineFiles {
 public:
  Recorder(MachineFiles& files, Entries& entries) : files_(files), entries_(entries) {}

  Result<std::string> read(const std::string& path, std::size_t most, const Excerpt& excerpt) override {
    auto text = files_.read(path, most, excerpt);
    if (text) entries_.insert_or_assign(path, Entry{EntryKind::file, *text});
    return text;
  }

  // What is never read must still be there to be listed.
  Result<std::vector<std::string>> list(const std::string& path) override {
    auto names = files_.list(path);
    if (!names) return names;
    entries_.try_emplace(path, Entry{EntryKind::directory, {}});
    for (const std::string& name : *names) entries_.try_emplace(path + "/" + name, Entry{EntryKind::directory, {}});
    return names;
  }

  Result<std::string> link(const std::string& path) override {
    auto target = files_.link(path);
    if (target) entries_.insert_or_assign(path, Entry{EntryKind::link, *target});
    return target;
  }

 private:
  MachineFiles& files_;
  Entries& entries_;
};

}  // namespace

Result<std::string> write_archive(const Entries& entries) {
  std::string archive;
  for (const auto& [path, entry] : entries) {
    const auto header = header_of(std::string_view(path).substr(1), entry);
    if (!header) return failure(fmt::format("the path `{}` is too long for a tar archive", escaped(path)));
    archive.append(reinterpret_cast<const char*>(&*header), kBlock);
    if (entry.kind == EntryKind::file) append_padded(archive, entry.content);
  }
  archive.append(2 * kBlock, '\0');
  return archive;
}

Result<Entries> read_archive(std::string_view archive, const std::string& name) { return ArchiveReader(archive, name).read(); }

std::unique_ptr<MachineFiles> files_of(Entries entries) { return std::make_unique<EntryFiles>(std::move(entries)); }

std::unique_ptr<MachineFiles> recorder(MachineFiles& files, Entries& entries) {
  return std::make_unique<Recorder>(files, entries);
}

}  // namespace ioplan::intake
