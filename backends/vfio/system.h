// The operating system as this backend uses it: the one small interface that tests replace.
//
// Every call answers with its value or with the errno that it failed with; nothing here interprets either. Paths are
// absolute. A descriptor that `open` or `memfd_create` gave is the caller's until `close`, which cannot fail in a way
// that matters: the descriptor is gone after it (close(2) on Linux).
// system_linux.cc is the real one; tests/support/fake_system.h keeps books instead. Held by
// tests/iommufd_backend_test.cc.
#pragma once

#include <compare>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "engine/base/error.h"

namespace ioplan::vfio {

struct Errno {
  int value = 0;
};

template <class T>
using Reply = tl::expected<T, Errno>;

inline tl::unexpected<Errno> fails_with(int errno_value) { return tl::make_unexpected(Errno{errno_value}); }

// What two descriptors have in common when they are of the same file; `node`: the number of a character device, 0 for
// other files.
struct FileIdentity {
  std::uint64_t device = 0, inode = 0;
  std::uint64_t node = 0;

  friend auto operator<=>(const FileIdentity&, const FileIdentity&) = default;
};

class System {
 public:
  virtual ~System() = default;

  virtual Reply<int> open(const std::string& path) = 0;  // read and write, close-on-exec
  virtual void close(int fd) = 0;
  virtual Reply<void> ioctl(int fd, unsigned long request, void* argument) = 0;
  virtual Reply<FileIdentity> identify(int fd) = 0;  // fstat(2)
  // One whose answer is its return value; `argument` is a pointer or a small number, as the call wants it.
  virtual Reply<int> ask(int fd, unsigned long request, std::uintptr_t argument) = 0;

  // Anonymous memory as a file. `page`: the kernel's page size, or one of its huge page sizes (hugetlb).
  virtual Reply<int> memfd_create(const std::string& name, std::uint64_t page) = 0;
  virtual Reply<void> ftruncate(int fd, std::uint64_t bytes) = 0;
  // Shared, read and write. `offset` and `bytes` are multiples of the file's page size.
  virtual Reply<std::uint64_t> mmap(int fd, std::uint64_t offset, std::uint64_t bytes) = 0;
  virtual void munmap(std::uint64_t address, std::uint64_t bytes) = 0;

  virtual Reply<std::string> read_file(const std::string& path) = 0;  // a small one, without its final newline
  virtual Reply<std::string> read_link(const std::string& path) = 0;
  virtual Reply<std::vector<std::string>> list(const std::string& path) = 0;  // names, sorted

  virtual std::uint64_t page_size() = 0;
  virtual std::uint64_t memlock_limit() = 0;  // RLIMIT_MEMLOCK in bytes, 2^64-1 when unlimited
  virtual bool locks_without_limit() = 0;     // CAP_IPC_LOCK
};

std::unique_ptr<System> linux_system();

// A descriptor that is closed with its owner when we opened it, and left alone when somebody lent it to us.
class Descriptor {
 public:
  Descriptor() = default;
  static Descriptor owned(System& system, int fd) { return Descriptor(&system, fd); }
  static Descriptor lent(int fd) { return Descriptor(nullptr, fd); }
  Descriptor(Descriptor&& other) noexcept : system_(other.system_), fd_(other.release()) {}
  Descriptor& operator=(Descriptor&& other) noexcept {
    std::swap(system_, other.system_);
    std::swap(fd_, other.fd_);
    return *this;
  }
  ~Descriptor() {
    if (system_ != nullptr && fd_ >= 0) system_->close(fd_);
  }

  int get() const { return fd_; }
  bool is_open() const { return fd_ >= 0; }
  bool is_lent() const { return is_open() && system_ == nullptr; }

 private:
  Descriptor(System* system, int fd) : system_(system), fd_(fd) {}
  int release() { return std::exchange(fd_, -1); }

  System* system_ = nullptr;
  int fd_ = -1;
};

}  // namespace ioplan::vfio
