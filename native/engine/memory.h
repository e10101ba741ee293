// Memory of packed weights, zero at first. Matrices lie one after the other in chunks, which can be moved to huge
// pages: with pages of 4 KB a virtual machine takes longer to look up addresses than to read the weights.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>

namespace riyaz {

// `bytes` of zeros at the beginning of a page of the system, which takes memory as they are written. Throws
// std::bad_alloc.
void* zeroed_pages(size_t bytes);

// Gives back what `zeroed_pages` gave.
void give_back_pages(void* pages, size_t bytes);

// Under AddressSanitizer `zeroed_pages` and `take_memory` give blocks of the heap, and each matrix and each page of the
// cache is one of its own, so that a byte beyond it is reported.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool GUARDED = true;
#elif defined(__has_feature)
constexpr bool GUARDED = __has_feature(address_sanitizer);
#else
constexpr bool GUARDED = false;
#endif

// `bytes` aligned to 64; a chunk is given back when nothing in it is in use. Throws std::bad_alloc.
std::shared_ptr<uint8_t> take_memory(size_t bytes);

// What is taken from here on begins a new chunk: called where a model or an adapter begins, so that each can be given
// back alone.
void begin_chunk();

// Moves all chunks to huge pages, in a thread of its own: half a second where the machine's host has to find them
// first, which a model that answers once need not wait for.
void use_huge_pages();

}  // namespace riyaz
