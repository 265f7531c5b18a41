# The embedded guest: a self-test of what a SEV guest can see, 4 KiB that end at 4 GiB.
#
# It goes the way of real firmware: reset vector in real mode, flat 32-bit code, CPUID and MSR, page tables with the
# C-bit, long mode.  Each finding is a line on the serial port; the end is an ACPI power-off.
# Built by scripts/build-boot-images with GNU as and ld; embedded.bin beside this file is the result, and a test
# holds the two together.

    .intel_syntax noprefix
    .set IMAGE_SIZE,    0x1000
    .set PAGE_TABLES,   0x20000         # PML4, PDPT, PD of the first GiB, PD of the last GiB below 4 GiB, second PML4
    .set TABLE_PAGES,   5
    .set STACK_TOP,     0x1f000
    .set PRIVATE_PAGE,  0x100000
    .set SHARED_PAGE,   0x200000        # the only 2 MiB mapped without the C-bit
    .set SECRET_AREA,   0x10000
    .set SECRET_SIZE,   0xc00
    .set SERIAL,        0x3f8
    .set FW_CFG_DMA,    0x514
    .set LARGE_PAGE,    0x83            # present, writable, 2 MiB
    .set TABLE,         0x03            # present, writable

    .text
    .globl _start
_start:
    .code16
    cli
    data32 lgdt cs:[gdt_pointer - _start + (0x10000 - IMAGE_SIZE)]
    mov     eax, cr0
    or      al, 1
    mov     cr0, eax
    .byte   0x66, 0xea                  # far jump with a 32-bit offset
    .long   protected_mode
    .word   0x08

    .code32
protected_mode:
    mov     ax, 0x10
    mov     ds, ax
    mov     es, ax
    mov     ss, ax
    mov     esp, STACK_TOP

    # ebp: bit 0 = the CPUID leaf says SEV, bit 1 = the MSR says active; edi: the C-bit's position; esi: reduced bits
    xor     ebp, ebp
    xor     edi, edi
    xor     esi, esi
    mov     eax, 0x80000000
    cpuid
    cmp     eax, 0x8000001f
    jb      build_tables
    mov     eax, 0x8000001f
    cpuid
    test    eax, 2
    jz      build_tables
    or      ebp, 1
    mov     edi, ebx
    and     edi, 0x3f
    mov     esi, ebx
    shr     esi, 6
    and     esi, 0x3f
    mov     ecx, 0xc0010131
    rdmsr
    test    eax, 1
    jz      build_tables
    or      ebp, 2

build_tables:
    # The upper half of an entry: the C-bit when SEV is active (its position is above 31).
    xor     edx, edx
    test    ebp, 2
    jz      1f
    lea     ecx, [edi - 32]
    mov     edx, 1
    shl     edx, cl
1:  mov     [0x1ff00], ebp              # findings, for the 64-bit part
    mov     [0x1ff04], edi
    mov     [0x1ff08], esi
    mov     edi, PAGE_TABLES
    mov     ecx, TABLE_PAGES * 1024
    xor     eax, eax
    rep stosd

    mov     edi, PAGE_TABLES
    lea     eax, [edi + 0x1000 + TABLE]
    mov     [edi], eax                  # PML4[0] -> PDPT
    mov     [edi + 4], edx
    mov     [edi + 0x4000], eax         # the second PML4 -> the same PDPT
    mov     [edi + 0x4004], edx
    add     eax, 0x1000
    mov     [edi + 0x1000], eax         # PDPT[0] -> PD of the first GiB
    mov     [edi + 0x1004], edx
    add     eax, 0x1000
    mov     [edi + 0x1018], eax         # PDPT[3] -> PD of the GiB that holds the firmware
    mov     [edi + 0x101c], edx
    mov     dword ptr [edi + 0x2000], LARGE_PAGE
    mov     [edi + 0x2004], edx         # 0 .. 2 MiB, private
    mov     dword ptr [edi + 0x2008], SHARED_PAGE + LARGE_PAGE
    mov     dword ptr [edi + 0x3ff8], 0xffe00000 + LARGE_PAGE
    mov     [edi + 0x3ffc], edx         # the firmware, private

    mov     eax, cr4
    or      eax, 0x20                   # PAE
    mov     cr4, eax
    mov     eax, edi
    mov     cr3, eax
    mov     ecx, 0xc0000080
    rdmsr
    or      eax, 0x100                  # EFER.LME
    wrmsr
    mov     eax, cr0
    or      eax, 0x80000000
    mov     cr0, eax
    .byte   0xea
    .long   long_mode
    .word   0x18

    .code64
long_mode:
    mov     esp, STACK_TOP
    mov     r12d, [0x1ff00]             # findings
    mov     r13d, [0x1ff04]             # C-bit position
    mov     r14d, [0x1ff08]             # reduced bits
    mov     r15, PAGE_TABLES
    test    r12d, 2
    jz      1f
    bts     r15, r13                    # CR3 carries the C-bit too
    mov     cr3, r15
1:
    lea     rsi, [rip + text_title]
    call    print

    # -- CPUID and MSR
    test    r12d, 1
    jz      no_sev
    lea     rsi, [rip + text_cpuid]
    call    print
    mov     eax, r13d
    call    print_decimal
    lea     rsi, [rip + text_reduced]
    call    print
    mov     eax, r14d
    call    print_decimal
    lea     rsi, [rip + text_end_of_line]
    call    print
    test    r12d, 2
    lea     rsi, [rip + text_msr_off]
    jz      1f
    lea     rsi, [rip + text_msr]
1:  call    print
    jmp     private_memory
no_sev:
    lea     rsi, [rip + text_no_sev]
    call    print

    # -- private memory: a value that changes with time, kept across a switch of CR3
private_memory:
    rdtsc
    shl     rdx, 32
    or      rax, rdx
    mov     rbx, 0x9e3779b97f4a7c15
    xor     rbx, rax
    mov     [PRIVATE_PAGE], rbx
    lea     rax, [r15 + 0x4000]
    mov     cr3, rax
    cmp     [PRIVATE_PAGE], rbx
    mov     cr3, r15
    lea     rsi, [rip + text_private_bad]
    jne     1f
    lea     rsi, [rip + text_private]
1:  call    print

    # -- shared memory: ask fw_cfg for its signature by DMA; request and answer lie in the shared page
    mov     edi, SHARED_PAGE
    mov     dword ptr [rdi], 0x0a000000         # select key 0 and read, big-endian
    mov     dword ptr [rdi + 4], 0x04000000     # four bytes
    mov     rax, SHARED_PAGE + 0x100
    bswap   rax
    mov     [rdi + 8], rax
    mov     dword ptr [rdi + 0x100], 0
    mov     dx, FW_CFG_DMA
    xor     eax, eax
    out     dx, eax                             # upper half of the descriptor's address
    mov     dx, FW_CFG_DMA + 4
    mov     eax, SHARED_PAGE
    bswap   eax
    out     dx, eax
    lea     rsi, [rip + text_shared_bad]
    cmp     dword ptr [rdi], 0                  # done, no error
    jne     1f
    cmp     dword ptr [rdi + 0x100], 0x554d4551 # "QEMU"
    jne     1f
    lea     rsi, [rip + text_shared]
1:  call    print

    # -- the secret table
    mov     rax, [rip + table_guid]
    mov     rdx, [rip + table_guid + 8]
    mov     rbx, SECRET_AREA
    cmp     [rbx], rax
    jne     no_secret
    cmp     [rbx + 8], rdx
    jne     no_secret
    mov     ebp, [rbx + 16]                     # length of the whole table
    cmp     ebp, SECRET_SIZE
    ja      no_secret
    add     rbp, rbx
    add     rbx, 20
next_secret:
    lea     rax, [rbx + 20]
    cmp     rax, rbp
    ja      done
    mov     ecx, [rbx + 16]                     # length of the entry
    cmp     ecx, 20
    jb      done
    lea     rax, [rbx + rcx]
    cmp     rax, rbp
    ja      done
    lea     rsi, [rip + text_secret]
    call    print
    call    print_guid
    lea     rsi, [rip + text_colon]
    call    print
    mov     r8d, [rbx + 16]
    lea     rsi, [rbx + 20]
    sub     r8d, 20
    add     rbx, 20
    add     rbx, r8
1:  test    r8d, r8d
    jz      2f
    lodsb
    call    print_character
    dec     r8d
    jmp     1b
2:  lea     rsi, [rip + text_end_of_line]
    call    print
    jmp     next_secret
no_secret:
    lea     rsi, [rip + text_no_secret]
    call    print
done:
    lea     rsi, [rip + text_done]
    call    print

    # -- power off: PIIX4's power management at 0x600, then S5
    mov     dx, 0xcf8
    mov     eax, 0x80000b40
    out     dx, eax
    mov     dx, 0xcfc
    mov     eax, 0x601
    out     dx, eax
    mov     dx, 0xcf8
    mov     eax, 0x80000b80
    out     dx, eax
    mov     dx, 0xcfc
    mov     al, 1
    out     dx, al
    mov     dx, 0x604
    mov     ax, 0x2000
    out     dx, ax
1:  cli
    hlt
    jmp     1b

# print: the zero-terminated text at rsi
print:
    lodsb
    test    al, al
    jz      1f
    call    print_character
    jmp     print
1:  ret

# print_character: al, when the transmitter is ready; everything else is preserved
print_character:
    push    rdx
    push    rax
    mov     dx, SERIAL + 5
1:  in      al, dx
    test    al, 0x20
    jz      1b
    pop     rax
    mov     dx, SERIAL
    out     dx, al
    pop     rdx
    ret

# print_decimal: eax below 100
print_decimal:
    xor     edx, edx
    mov     ecx, 10
    div     ecx
    push    rdx
    test    eax, eax
    jz      1f
    add     al, '0'
    call    print_character
1:  pop     rax
    add     al, '0'
    jmp     print_character

# print_guid: the GUID at rbx in its usual text form (the first three fields are little-endian)
print_guid:
    lea     rdi, [rip + guid_order]
1:  movsx   eax, byte ptr [rdi]
    inc     rdi
    cmp     eax, -1
    je      3f
    cmp     eax, '-'
    jne     2f
    call    print_character
    jmp     1b
2:  movzx   eax, byte ptr [rbx + rax]
    push    rax
    shr     al, 4
    call    print_nibble
    pop     rax
    and     al, 15
    call    print_nibble
    jmp     1b
3:  ret

print_nibble:
    cmp     al, 10
    jb      1f
    add     al, 'a' - '0' - 10
1:  add     al, '0'
    jmp     print_character

guid_order:
    .byte   3, 2, 1, 0, '-', 5, 4, '-', 7, 6, '-', 8, 9, '-', 10, 11, 12, 13, 14, 15, -1

text_title:         .asciz "sevplug self-test of a guest\r\n"
text_cpuid:         .asciz "[ok]   CPUID 0x8000001f: SEV, C-bit "
text_reduced:       .asciz ", physical address bits reduced by "
text_end_of_line:   .asciz "\r\n"
text_msr:           .asciz "[ok]   MSR 0xc0010131: SEV is active\r\n"
text_msr_off:       .asciz "[FAIL] MSR 0xc0010131: SEV is not active\r\n"
text_no_sev:        .asciz "[none] CPUID 0x8000001f: this CPU has no SEV, a plain guest\r\n"
text_private:       .asciz "[ok]   private memory: holds what was written after a switch of CR3\r\n"
text_private_bad:   .asciz "[FAIL] private memory: lost what was written after a switch of CR3\r\n"
text_shared:        .asciz "[ok]   shared memory: a device read a request there and wrote its answer\r\n"
text_shared_bad:    .asciz "[FAIL] shared memory: no answer from the device\r\n"
text_secret:        .asciz "[ok]   secret "
text_colon:         .asciz ": "
text_no_secret:     .asciz "[none] no secret was injected\r\n"
text_done:          .asciz "done\r\n"

    .align 8
gdt:
    .quad   0
    .quad   0x00cf9b000000ffff          # 0x08: 32-bit code
    .quad   0x00cf93000000ffff          # 0x10: data
    .quad   0x00af9b000000ffff          # 0x18: 64-bit code
gdt_pointer:
    .word   4 * 8 - 1
    .long   gdt

# 1e74f542-71dd-4d66-963e-ef4287ff173b, the secret table's header
table_guid:
    .byte   0x42, 0xf5, 0x74, 0x1e, 0xdd, 0x71, 0x66, 0x4d, 0x96, 0x3e, 0xef, 0x42, 0x87, 0xff, 0x17, 0x3b

# OVMF's GUIDed table, walked backwards from 32 bytes before the end
    .org    IMAGE_SIZE - 32 - (26 + 18)
guided_table:
    .long   SECRET_AREA, SECRET_SIZE
    .word   26
    # 4c2eb361-7d9b-4cc3-8081-127c90d3d294
    .byte   0x61, 0xb3, 0x2e, 0x4c, 0x9b, 0x7d, 0xc3, 0x4c, 0x80, 0x81, 0x12, 0x7c, 0x90, 0xd3, 0xd2, 0x94
    .word   26 + 18
    # 96b582de-1fb2-45f7-baea-a366c55a082d
    .byte   0xde, 0x82, 0xb5, 0x96, 0xb2, 0x1f, 0xf7, 0x45, 0xba, 0xea, 0xa3, 0x66, 0xc5, 0x5a, 0x08, 0x2d

    .org    IMAGE_SIZE - 16
reset_vector:
    .code16
    .byte   0xe9
    .word   _start - (. + 2)
    .org    IMAGE_SIZE
