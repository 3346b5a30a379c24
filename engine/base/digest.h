// A 128-bit name for a sequence of words and texts: equal sequences, equal names, on every machine.
//
// MurmurHash3's x64 mixing (Appleby, public domain), fed 16 bytes at a time. Not cryptographic: it tells captures of
// hosts apart and defends nothing. Held by tests/base_test.cc.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace ioplan {

class Digest {
 public:
  void add(std::uint64_t word) { absorb(word, kWord); }
  void add(std::string_view text);  // with its length, so that neighbours do not run together

  // As a UUID (version 8: the application's own).
  std::string uuid() const;

 private:
  static constexpr std::uint64_t kWord = 1, kText = 2;

  void absorb(std::uint64_t low, std::uint64_t high);

  std::uint64_t low_ = 0, high_ = 0, absorbed_ = 0;
};

}  // namespace ioplan
