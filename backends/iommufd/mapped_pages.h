// Which bytes of which file are mapped where, so that nothing is pinned twice: an IOAS that maps what another one has
// mapped already gets a copy of it (IOMMU_IOAS_COPY), and both share the pages.
//
// The kernel copies what lies without a hole in one IOAS, however many maps it was made of. The copy may be
// written to when the source's pages were pinned for writing; what was pinned read-only stays so, in copies of copies
// too. Source: drivers/iommu/iommufd/io_pagetable.c iopt_get_pages, iopt_insert_area. Asks nobody; held by
// tests/mapped_pages_test.cc, against a table with a row for every page.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "backends/vfio/system.h"
#include "engine/base/range.h"
#include "engine/model/virtual_machine.h"

namespace ioplan::iommufd {

// A stretch of a file that is mapped, or is to be.
struct FileStretch {
  vfio::FileIdentity file;
  std::uint64_t offset = 0;
  std::uint64_t bytes = 0;
};

class MappedPages {
 public:
  struct Source {
    std::string ioas;
    std::uint64_t iova = 0;
    Access pinned = Access::read_write;  // how its pages are, read-only when some are
  };

  // `pinned`: how the pages are, which a copy has from its source.
  void add(const std::string& ioas, std::uint64_t iova, const FileStretch& stretch, Access pinned);
  void remove(const std::string& ioas, std::uint64_t iova);  // requires: it was added

  RangeSet mapped(const std::string& ioas) const;
  // The pieces, as they were added, that lie in a range; ascending.
  std::vector<Range> pieces(const std::string& ioas, const Range& in) const;
  // Where all of it is mapped, pinned well enough. Where nothing is: the reason why it must be pinned once more, or an
  // empty text when it is not pinned at all.
  tl::expected<Source, std::string> find(const FileStretch& stretch, Access access) const;

 private:
  using Where = std::pair<std::string, std::uint64_t>;  // IOAS and IOVA
  struct Piece {
    FileStretch stretch;
    Access pinned = Access::read_write;
  };
  using Pieces = std::map<Where, Piece>;

  tl::expected<Source, std::string> source(Pieces::const_iterator first, const FileStretch& stretch,
                                           Access access) const;
  Pieces::const_iterator next(Pieces::const_iterator piece) const;

  Pieces pieces_;
  std::multimap<std::pair<vfio::FileIdentity, std::uint64_t>, Where> by_file_;  // and offset
  std::uint64_t longest_ = 0;                                                   // piece so far, in bytes
};

}  // namespace ioplan::iommufd
