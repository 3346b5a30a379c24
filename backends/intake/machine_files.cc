#include "backends/intake/machine_files.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <linux/openat2.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "engine/base/text.h"

namespace ioplan::intake {

namespace {

constexpr std::size_t kMostNames = 1U << 20;

tl::unexpected<Error> fails_with(int errno_value) { return tl::make_unexpected(Error{{}, {}, {}, errno_value}); }

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }
  int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

class Directory final : public MachineFiles {
 public:
  explicit Directory(Descriptor root) : root_(std::move(root)) {}

  // Regular files only, and O_NONBLOCK: a copy may hold a pipe.
  Result<std::string> read(const std::string& path, std::size_t most, const Excerpt& excerpt) override {
    const Descriptor file(open_in_folder(path, O_RDONLY | O_NONBLOCK));
    struct stat info {};
    if (file.get() < 0 || fstat(file.get(), &info) != 0) return fails_with(errno);
    if (!S_ISREG(info.st_mode)) return fails_with(EISDIR);
    std::string text;
    std::array<char, 16384> part;
    while (text.size() < most) {
      const ssize_t got = ::read(file.get(), part.data(), std::min(part.size(), most - text.size()));
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return fails_with(errno);
      if (got == 0) break;
      text.append(part.data(), static_cast<std::size_t>(got));
    }
    return excerpt(text);
  }

  Result<std::vector<std::string>> list(const std::string& path) override {
    Descriptor folder(open(path, O_RDONLY | O_DIRECTORY));
    if (folder.get() < 0) return fails_with(errno);
    DIR* stream = fdopendir(folder.get());
    if (stream == nullptr) return fails_with(errno);
    folder.release();
    std::vector<std::string> names;
    while (const dirent* entry = readdir(stream)) {
      const std::string_view name = entry->d_name;
      if (name != "." && name != ".." && names.size() < kMostNames) names.emplace_back(name);
    }
    closedir(stream);
    std::ranges::sort(names, natural_less);
    return names;
  }

  Result<std::string> link(const std::string& path) override {
    if (!enter(folder_of(path))) return fails_with(errno);
    std::array<char, 4096> target;
    const ssize_t size = readlinkat(folder_.get(), name_of(path), target.data(), target.size());
    if (size < 0) return fails_with(errno);
    return last_component({target.data(), static_cast<std::size_t>(size)});
  }

 private:
  static std::string_view folder_of(std::string_view path) { return path.substr(0, path.rfind('/')); }
  static const char* name_of(const std::string& path) { return path.c_str() + path.rfind('/') + 1; }

  // Most questions are about the folder of the one before: it stays open, so that its path is walked once.
  bool enter(std::string_view folder) {
    if (folder_.get() >= 0 && entered_ == folder) return true;
    entered_ = folder;
    folder_ = Descriptor(open(entered_, O_PATH | O_DIRECTORY));
    return folder_.get() >= 0;
  }

  // A name that turns out to be a link is walked to from the root.
  int open_in_folder(const std::string& path, int flags) {
    if (!enter(folder_of(path))) return -1;
    const int fd = open_below(folder_.get(), name_of(path), flags, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS);
    return fd < 0 && errno == ELOOP ? open(path, flags) : fd;
  }

  int open(const std::string& path, int flags) {
    const char* relative = path.c_str() + (path.starts_with('/') ? 1 : 0);
    return open_below(root_.get(), *relative == '\0' ? "." : relative, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
  }

  // Links resolve inside the root. Kernels before 5.6 do not know how; there a copy's links are followed as they are.
  static int open_below(int folder, const char* name, int flags, std::uint64_t resolve) {
    open_how how{};
    how.flags = static_cast<std::uint64_t>(flags | O_CLOEXEC);
    how.resolve = resolve;
    const long fd = syscall(SYS_openat2, folder, name, &how, sizeof(how));
    if (fd < 0 && errno == ENOSYS) return openat(folder, name, flags | O_CLOEXEC);
    return static_cast<int>(fd);
  }

  Descriptor root_;
  std::string entered_;
  Descriptor folder_{-1};
};

}  // namespace

Result<std::unique_ptr<MachineFiles>> open_directory(const std::string& root) {
  Descriptor descriptor(::open(root.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (descriptor.get() < 0) {
    return failure(fmt::format("cannot open the directory `{}`", escaped(root)), "name a directory that holds `sys` and `proc`");
  }
  return std::make_unique<Directory>(std::move(descriptor));
}

std::string last_component(std::string_view path) {
  while (path.size() > 1 && path.ends_with('/')) path.remove_suffix(1);
  const std::size_t slash = path.rfind('/');
  return std::string(slash == std::string_view::npos ? path : path.substr(slash + 1));
}

}  // namespace ioplan::intake
