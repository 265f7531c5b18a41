# The way from the reset vector to a Linux kernel's 64-bit entry, where no firmware goes it: 4 KiB that end at 4 GiB.
#
# sevplug/boot/direct.py fills in the first three words.  Built by scripts/build-boot-images with GNU as and ld;
# direct.bin beside this file is the result, and a test holds the two together.

    .intel_syntax noprefix
    .set IMAGE_SIZE,    0x1000

    .text
    .globl _start
_start:
page_tables:    .quad 0                 # with the C-bit
boot_params:    .quad 0
entry:          .quad 0

    .code16
real_mode:
    cli
    data32 lgdt cs:[gdt_pointer - _start + (0x10000 - IMAGE_SIZE)]
    mov     eax, 0x11                   # PE, ET; caches on
    mov     cr0, eax
    .byte   0x66, 0xea                  # far jump with a 32-bit offset
    .long   protected_mode
    .word   0x08

    .code32
protected_mode:
    mov     ax, 0x18
    mov     ds, ax
    mov     es, ax
    mov     ss, ax
    mov     fs, ax
    mov     gs, ax
    mov     eax, 0x20                   # PAE
    mov     cr4, eax
    # A C-bit is above bit 31, out of reach here; the walk is private all the same.
    mov     eax, [page_tables]
    mov     cr3, eax
    mov     ecx, 0xc0000080
    rdmsr
    or      eax, 0x100                  # EFER.LME
    wrmsr
    mov     eax, 0x80000011             # PG
    mov     cr0, eax
    .byte   0xea
    .long   long_mode
    .word   0x10

    .code64
long_mode:
    mov     rax, [rip + page_tables]
    mov     cr3, rax
    mov     rsi, [rip + boot_params]
    jmp     qword ptr [rip + entry]

    .balign 8
# The selectors are those that the boot protocol asks for: 0x10 code, 0x18 data.
gdt:
    .quad   0
    .quad   0x00cf9b000000ffff          # 0x08: 32-bit code
    .quad   0x00af9b000000ffff          # 0x10: 64-bit code
    .quad   0x00cf93000000ffff          # 0x18: data
gdt_pointer:
    .word   . - gdt - 1
    .long   gdt

    .org    IMAGE_SIZE - 16
    .code16
    .byte   0xe9                        # near jump with a 16-bit offset
    .word   real_mode - (. + 2)
    .org    IMAGE_SIZE
