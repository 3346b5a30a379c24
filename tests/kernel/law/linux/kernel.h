/*
 * The part of the kernel that its IOMMU functions stand on, for user space: words, allocation, locks that lock nothing.
 *
 * Included before everything else. What can be taken from Linux itself is (core.recipe); this is what cannot be: what
 * depends on the machine, and types of which only the name or a pointer is used. All of it is ours.
 */
#ifndef IOPLAN_TESTS_KERNEL_LAW_KERNEL_H
#define IOPLAN_TESTS_KERNEL_LAW_KERNEL_H

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* Configuration: a stock distribution kernel. */
#define CONFIG_IOMMU_API 1
#define CONFIG_IOMMU_PT 1
#define CONFIG_IOMMUFD_DRIVER 1
#define JUDGE_COMMA_1 ,
#define JUDGE_SECOND(a, b, ...) b
#define JUDGE_HAS_COMMA(comma) JUDGE_SECOND(comma 1, 0)
#define JUDGE_ENABLED(value) JUDGE_HAS_COMMA(JUDGE_COMMA_##value)
#define IS_ENABLED(option) JUDGE_ENABLED(option)

/* Words. */
typedef uint8_t u8, __u8;
typedef uint16_t u16, __u16;
typedef uint32_t u32, __u32;
typedef int32_t s32, __s32;
typedef int64_t s64, __s64;
typedef unsigned long long u64, __u64;
typedef unsigned __int128 u128;
typedef u16 __le16;
typedef u32 __le32;
typedef u64 __le64, __aligned_u64, phys_addr_t, dma_addr_t;
typedef unsigned long pgoff_t;
typedef long ssize_t;
typedef unsigned int gfp_t;
#define U32_MAX UINT32_MAX
#define U64_MAX ULLONG_MAX
#define BITS_PER_LONG 64
#define SZ_4K 0x1000UL
#define SZ_16K 0x4000UL
#define SZ_64K 0x10000UL
#define SZ_2M 0x200000UL
#define SZ_32M 0x2000000UL
#define SZ_512M 0x20000000UL
#define SZ_1G 0x40000000UL
#define SZ_512G 0x8000000000UL
#define SMP_CACHE_BYTES 64
#define MAX_PAGE_ORDER 10
extern unsigned long judge_page_size;
#define PAGE_SIZE judge_page_size
#define PAGE_MASK (~(judge_page_size - 1))
#define PAGE_SHIFT (__builtin_ctzl(judge_page_size))

/* Language. */
#define __force
#define __iomem
#define __init
#define __initdata
#define __rcu
#define __ro_after_init
#define __read_mostly
#define __user
#undef __always_inline
#define __always_inline inline __attribute__((always_inline))
#define __maybe_unused __attribute__((unused))
#define __must_check
#define __counted_by(member)
#define fallthrough __attribute__((fallthrough))
#define likely(x) (x)
#define unlikely(x) (x)
#define typeof __typeof__
#define CONCATENATE_(a, b) a##b
#define CONCATENATE(a, b) CONCATENATE_(a, b)
#define __stringify_(...) #__VA_ARGS__
#define __stringify(...) __stringify_(__VA_ARGS__)
#define container_of(pointer, type, member) ((type*)((char*)(pointer)-offsetof(type, member)))
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define min(a, b) ((a) < (b) ? (a) : (b))
#define max(a, b) ((a) > (b) ? (a) : (b))
#define min_t(type, a, b) min((type)(a), (type)(b))
#define BIT(n) (1UL << (n))
#define BIT_ULL(n) (1ULL << (n))
#define GENMASK(high, low) ((~0UL >> (63 - (high))) & (~0UL << (low)))
#define GENMASK_ULL(high, low) ((u64)GENMASK(high, low))
#define FIELD_GET(mask, reg) (((reg) & (mask)) >> __builtin_ctzll(mask))
#define FIELD_PREP(mask, value) (((u64)(value) << __builtin_ctzll(mask)) & (mask))
#define __bf_shf(mask) __builtin_ctzll(mask)
#define __ffs(x) ((unsigned long)__builtin_ctzl(x))
#define __ffs64(x) ((unsigned int)__builtin_ctzll(x))
#define __fls(x) (63UL - (unsigned long)__builtin_clzl(x))
#define fls(x) ((x) ? 32 - __builtin_clz(x) : 0)
#define fls64(x) ((x) ? 64 - __builtin_clzll(x) : 0)
#define fls_long(x) fls64(x)
#define ffz(x) __ffs(~(x))
#define ilog2(x) (63 - __builtin_clzll((u64)(x)))
#define DIV_ROUND_UP(a, b) (((a) + (b)-1) / (b))
#define ALIGN(x, a) (((x) + (a)-1) & ~((typeof(x))(a)-1))
#define DMA_BIT_MASK(n) ((n) == 64 ? ~0ULL : (1ULL << (n)) - 1)
#define DECLARE_BITMAP(name, bits) unsigned long name[DIV_ROUND_UP(bits, 64)]
#define test_bit(n, bitmap) ((bitmap)[(n) / 64] >> ((n) % 64) & 1)
#define memset_after(object, value, member)                                                       \
  memset((char*)(object) + offsetof(typeof(*(object)), member) + sizeof((object)->member), value, \
         sizeof(*(object)) - offsetof(typeof(*(object)), member) - sizeof((object)->member))
#define check_add_overflow(a, b, sum) __builtin_add_overflow(a, b, sum)
#define cpu_to_le32(x) (x)
#define EXPORT_SYMBOL_NS_GPL(name, space)
#define MODULE_LICENSE(text)
#define MODULE_DESCRIPTION(text)
#define MODULE_IMPORT_NS(space)
#define BUILD_BUG_ON_ZERO(condition) 0
#define BUILD_BUG() __builtin_unreachable()

/* What never happens here, and must not be overlooked when it does. */
void judge_missing(const char* function, const char* file) __attribute__((noreturn));
bool judge_warning(bool happened, const char* condition, const char* function);
#define WARN_ON(condition) judge_warning(!!(condition), #condition, __func__)

/* Silence. */
#define dev_err(...) ((void)0)
#define dev_warn(...) ((void)0)
#define dev_info(...) ((void)0)
#define pr_err(...) ((void)0)
#define pr_warn(...) ((void)0)
#define pr_warn_once(...) ((void)0)
#define pr_info(...) ((void)0)
#define pr_notice(...) ((void)0)
#define pr_err_ratelimited(...) ((void)0)
#define trace_attach_device_to_domain(device) ((void)0)

/* One thread: locks, order and atomicity are free. */
typedef struct {
  int unused;
} spinlock_t, raw_spinlock_t, rwlock_t, lockdep_map_t;
typedef struct {
  int counter;
} atomic_t, refcount_t;
typedef struct {
  long counter;
} atomic_long_t, atomic64_t;
struct mutex {
  int unused;
};
struct rw_semaphore {
  int unused;
};
#define READ_ONCE(x) (x)
#define WRITE_ONCE(x, value) ((x) = (value))
#define smp_mb() ((void)0)
#define wmb() ((void)0)
#define dma_wmb() ((void)0)
#define rcu_dereference_protected(p, condition) (p)
#define rcu_assign_pointer(p, value) ((p) = (value))
#define judge_exchange(p, expected, value) (*(p) == *(expected) ? (*(p) = (value), true) : (*(expected) = *(p), false))
#define try_cmpxchg64(p, expected, value) judge_exchange(p, expected, value)
#define try_cmpxchg64_release(p, expected, value) judge_exchange(p, expected, value)
#define try_cmpxchg_release(p, expected, value) judge_exchange(p, expected, value)
#define atomic_inc(a) ((a)->counter++)
#define refcount_inc(a) ((a)->counter++)
#define spin_lock_init(lock) ((void)(lock))
#define rwlock_init(lock) ((void)(lock))
#define spin_lock_irqsave(lock, flags) ((void)(lock), (flags) = 0)
#define spin_unlock_irqrestore(lock, flags) ((void)(lock), (void)(flags))
#define assert_spin_locked(lock) ((void)(lock))
#define lockdep_assert_held(lock) ((void)(lock))
#define mutex_lock(lock) ((void)(lock))
#define mutex_unlock(lock) ((void)(lock))
#define guard(kind) (void)

/* Memory. */
#define GFP_KERNEL 0
#define NUMA_NO_NODE (-1)
#define dev_to_node(dev) NUMA_NO_NODE
#define kfree(p) free((void*)(p))
#define struct_size(object, member, count) (sizeof(*(object)) + (count) * sizeof((object)->member[0]))
#define kzalloc(size, gfp) calloc(1, size)
#define kzalloc_obj(object, ...) calloc(1, sizeof(object))
#define kvzalloc_objs(object, count) calloc(count, sizeof(object))
#define kmalloc_obj(object, ...) calloc(1, sizeof(object))
#define virt_to_phys(p) ((phys_addr_t)(uintptr_t)(p))
#define __va(p) ((void*)(uintptr_t)(p))
#define phys_to_virt(p) ((void*)(uintptr_t)(p))
#define clflush_cache_range(p, size) ((void)(p), (void)(size))
#define __sme_set(x) (x)
#define __sme_clr(x) (x)
struct folio;
#define virt_to_folio(p) ((struct folio*)judge_page_of(p))
void* judge_page_of(void* virt);

/* Things that other things have inside, or point to. */
struct list_head {
  struct list_head *next, *prev;
};
#define LIST_POISON1 NULL
#define LIST_POISON2 NULL
struct rb_node {
  int unused;
};
struct rb_root {
  int unused;
};
struct rb_root_cached {
  int unused;
};
#define RB_ROOT_CACHED ((struct rb_root_cached){})
struct xarray {
  int unused;
};
#define xa_init(xarray) ((void)(xarray))
#define xa_alloc(xarray, id, entry, limit, gfp) ((void)(*(id) = 1), 0)
#define xa_erase(xarray, id) ((void)(xarray))
struct ida {
  int unused;
};
#define ida_init(ida) ((void)(ida))
#define ida_alloc_range(ida, first, last, gfp) ((int)(first))
#define ida_free(ida, id) ((void)(ida))
struct completion {
  int unused;
};
struct work_struct {
  int unused;
};
struct kref {
  int unused;
};
struct maple_tree {
  int unused;
};
struct wait_queue_head {
  int unused;
};
struct llist_head {
  int unused;
};
struct llist_node {
  int unused;
};
struct ratelimit_state {
  int unused;
};
struct pmu {
  int unused;
};
struct kobject {
  int unused;
};
struct mmu_notifier {
  int unused;
};
struct rcu_head {
  int unused;
};
typedef struct {
  int unused;
} wait_queue_head_t, pgprot_t;
struct module;
struct iova_bitmap;
#define iova_bitmap_set(bitmap, iova, length) judge_missing("iova_bitmap_set", "drivers/iommu/iommufd/iova_bitmap.c")
#define memset64(target, value, count) judge_missing("memset64", "include/linux/string.h")
struct of_phandle_args;
#define THIS_MODULE ((struct module*)0)
struct pci_dev;
struct dev_iommu;
struct iommu_group;
struct fwnode_handle;
struct bus_type;
struct attribute_group;
struct device {
  struct device* parent;
  const struct bus_type* bus;
  struct dev_iommu* iommu;
  struct iommu_group* iommu_group;
  void* of_node;
};

#endif
