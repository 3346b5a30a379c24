// Guest memory in IOASes: the files behind it, and who maps which of their bytes.
//
// A VM has its memory once: IOASes of one VM that map the same addresses share a file. What one IOAS has mapped of a
// file already is copied into the next (mapped_pages.h), so that pages are pinned, and counted against RLIMIT_MEMLOCK,
// once; where that is not possible it is mapped again, and `pinned_again` says why. A file is given back when nothing
// of it is mapped any more; the kernel holds on to what it has pinned. Held by tests/iommufd_backend_test.cc.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backends/iommufd/calls.h"
#include "backends/iommufd/mapped_pages.h"
#include "backends/vfio/guest_memory.h"
#include "engine/model/plan.h"

namespace ioplan::iommufd {

// One map step, with all that the plan says of the memory behind it.
struct GuestMap {
  Step step;
  PlannedIoas space;
  MemoryRange range;  // of the plan's memory, of which the step is the whole or a piece
  Range file;         // guest addresses that one file of ours holds

  std::uint64_t bytes() const { return step.iova.extent() + 1; }
  Access access() const { return step.writeable ? Access::read_write : Access::read_only; }
};

GuestMap guest_map(const Plan& plan, const Step& step);

class GuestMaps {
 public:
  // Gives the memory of one range of a VM. Asked once a range, before anything is touched.
  using Lender = std::function<Result<LentMemory>(const PlannedIoas&, const MemoryRange&)>;
  using IdOf = std::function<ObjectId(const std::string& ioas)>;

  // Without a lender, memory is a memfd of the plan's backing pages. The system must outlive this.
  GuestMaps(System& system, Lender lender, IdOf id_of)
      : system_(system), lender_(std::move(lender)), id_of_(std::move(id_of)) {}

  // What the plan's maps pin, each page once where copies will do. Errors: the lender's.
  Result<std::uint64_t> bytes_to_pin(const Plan& plan);

  // All or nothing.
  Result<void> map(int iommu, const GuestMap& map);
  // Requires: it is mapped, in one piece or in several.
  Result<void> unmap(int iommu, const GuestMap& map);

  // Keeps the memory behind a map, whatever is unmapped, until the last copy of the result is gone; which must be before this.
  using Hold = std::shared_ptr<void>;
  Hold hold(const GuestMap& map);

  // What is mapped in an IOAS now, and by which maps.
  RangeSet mapped(const std::string& ioas) const { return pages_.mapped(ioas); }
  std::vector<Range> pieces(const std::string& ioas, const Range& in) const { return pages_.pieces(ioas, in); }
  // "0x0-0xfff in ioas1: ioas0 has it pinned for reading only"
  const std::vector<std::string>& pinned_again() const { return pinned_again_; }

 private:
  using Place = std::pair<std::string, Range>;  // whose memory, and which: one file
  struct Backing {
    GuestMemory memory;
    FileIdentity identity;
    std::size_t pieces = 0;  // mapped, and holds
  };
  struct Lent {
    LentMemory memory;
    FileIdentity identity;
  };

  Place place_of(const GuestMap& map) const;
  Result<Lent> lent(const GuestMap& map);
  Result<Backing*> backing(const GuestMap& map);
  Result<Backing> make_backing(const GuestMap& map);
  void give_back(const Place& place, std::size_t pieces);

  Result<void> fill(int iommu, const GuestMap& map, Backing& backing);
  Reply<void> pin(int iommu, const GuestMap& map, GuestMemory& memory);
  Mapping mapping_of(const GuestMap& map) const;

  System& system_;
  Lender lender_;
  IdOf id_of_;
  bool maps_files_ = true;  // until the kernel says that it does not know IOMMU_IOAS_MAP_FILE (Linux 6.13)
  std::map<Place, Lent> lent_;
  std::map<Place, Backing> backings_;
  MappedPages pages_;
  std::vector<std::string> pinned_again_;
};

}  // namespace ioplan::iommufd
