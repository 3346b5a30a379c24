/*
 * What a driver of Linux, compiled out of its source, answers about a HWPT: the seam between the C that surrounds the
 * kernel's functions (one shared library a driver) and the C++ that compares their answers with our law's.
 */
#ifndef IOPLAN_TESTS_KERNEL_LAW_ANSWERS_H
#define IOPLAN_TESTS_KERNEL_LAW_ANSWERS_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { JUDGE_UNITS = 2 };

/* One IOMMU and the device behind it. Each driver reads the fields that its hardware has. */
struct judge_unit {
  uint64_t cap, ecap;                    /* intel */
  uint64_t efr, efr2;                    /* amd */
  uint32_t idr0, idr1, idr3, idr5, iidr; /* smmuv3 */
  uint32_t firmware_updates; /* smmuv3: what ACPI allows, as IDR0.HTTU; without effect where `device_tree` */
  uint8_t coherent, device_tree, canwbs; /* smmuv3 */
  uint64_t page_sizes;                   /* virtio */
  uint8_t has_input_range;
  uint64_t input_start, input_last;
};

/* The host around them: command line, processor, firmware. */
struct judge_host {
  struct judge_unit units[JUDGE_UNITS];
  uint8_t one_unit;                                              /* both devices are behind the first */
  uint8_t scalable_mode, superpages_off, rwbf_quirk;             /* intel */
  uint8_t v2_tables, nohugepages, v2_page_sizes_only, wants_snp; /* amd */
  uint8_t la57, hatdis;
  uint32_t ivinfo; /* amd: IVRS IVinfo */
  uint64_t page_size;
  uint32_t va_bits;          /* arm64 */
  uint8_t known_by_boot_log; /* smmuv3: what our document states; nothing to the kernel */
};

/* What the driver makes of a device. */
struct judge_device {
  uint8_t usable; /* the driver starts with this unit */
  uint8_t cache_coherency, enforce_cache_coherency, dirty_tracking;
  uint8_t snp, nests;             /* what only the driver knows: SEV-SNP is on; nesting is on */
  uint32_t features, output_bits; /* smmuv3: as its boot log prints them */
};

/* What HWPT_ALLOC made: an errno, or the attributes. */
struct judge_hwpt {
  int error;
  uint32_t stage, levels, address_bits; /* address_bits: 0 where the driver has no such number */
  uint64_t aperture_start, aperture_last, page_sizes;
  uint8_t dirty_tracking, nest_parent, enforce_cache_coherency, coherent_walk, sync_map, takes_read_only;
};

/* The symbol `judge` of a library. Calls are made in this order; a HWPT is freed by the next boot or allocation. */
struct judge {
  const char* driver;
  void (*boot)(const struct judge_host* host);
  void (*describe)(unsigned unit, struct judge_device* device);
  void (*allocate)(unsigned unit, unsigned flags, struct judge_hwpt* hwpt);
  int (*attach)(unsigned unit); /* attaches an unattached device to the HWPT: 0 or an errno */
};

#ifdef __cplusplus
}
#endif

#endif
