#include "engine/base/digest.h"

#include <fmt/format.h>

#include <bit>

namespace ioplan {

namespace {

constexpr std::uint64_t kC1 = 0x87c37b91114253d5, kC2 = 0x4cf5ad432745937f;

// Up to eight bytes, the first lowest.
std::uint64_t word_of(std::string_view bytes) {
  std::uint64_t word = 0;
  for (std::size_t i = 0; i < bytes.size(); ++i) {
    word |= static_cast<std::uint64_t>(static_cast<unsigned char>(bytes[i])) << (8 * i);
  }
  return word;
}

std::uint64_t spread(std::uint64_t k) {
  k = (k ^ k >> 33) * 0xff51afd7ed558ccd;
  k = (k ^ k >> 33) * 0xc4ceb9fe1a85ec53;
  return k ^ k >> 33;
}

}  // namespace

void Digest::absorb(std::uint64_t low, std::uint64_t high) {
  low_ ^= std::rotl(low * kC1, 31) * kC2;
  low_ = (std::rotl(low_, 27) + high_) * 5 + 0x52dce729;
  high_ ^= std::rotl(high * kC2, 33) * kC1;
  high_ = (std::rotl(high_, 31) + low_) * 5 + 0x38495ab5;
  ++absorbed_;
}

void Digest::add(std::string_view text) {
  absorb(text.size(), kText);
  while (!text.empty()) {
    const std::string_view low = text.substr(0, 8);
    text.remove_prefix(low.size());
    const std::string_view high = text.substr(0, 8);
    text.remove_prefix(high.size());
    absorb(word_of(low), word_of(high));
  }
}

std::string Digest::uuid() const {
  std::uint64_t low = low_ ^ absorbed_, high = high_ ^ absorbed_;
  low += high;
  high += low;
  low = spread(low);
  high = spread(high);
  low += high;
  high += low;
  return fmt::format("{:08x}-{:04x}-8{:03x}-{:04x}-{:012x}", low >> 32, low >> 16 & 0xffff, low & 0xfff,
                     0x8000 | (high >> 48 & 0x3fff), high & 0xffffffffffff);
}

}  // namespace ioplan
