# What every small guest of the tests begins with; guests.py explains it and appends a mode's prelude and the probes.

    .macro user32 flags=0x2
    push 0x33
    push 0x30000
    push \flags
    push 0x2b
    push offset 88f
    iretd
88: mov eax, 0x33
    mov ds, ax
    mov es, ax
    .endm
    .macro user64 flags=0x2
    push 0x33
    push 0x30000
    push \flags
    push 0x3b
    lea rax, [rip+88f]
    push rax
    iretq
88:
    .endm
    .macro user16 flags=0x2
    push 0x63
    push 0x6000
    push \flags
    push 0x5b
    push offset 88f - _start
    iret
88: mov ax, 0x63
    mov ds, ax
    mov es, ax
    .endm
    .macro virtual86 flags=0x20002
    push 0x4444
    push 0x3333
    push 0x2222
    push 0x1111
    push 0x3000
    push 0xfff0
    push \flags
    push 0xf000
    push offset 88f - _start
    iretd
    .code16
88:
    .endm

# Common to all modes: copy the image to 0xF0000, where the reset vector's code segment lies after any far jump.
    cli
    cld
    mov al, 0xff
    out 0x21, al
    out 0xa1, al
    mov ax, 0xf000
    mov es, ax
    xor si, si
    xor di, di
    mov cx, 0x8000
    rep movsw es:[di], cs:[si]
    .att_syntax
    ljmpw $0xf000, $low-_start
    .intel_syntax noprefix
low:
    xor ax, ax
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov esp, 0
    jmp prelude

emit16:
    push cx
    mov cx, 4
1:  out 0xe9, al
    ror eax, 8
    loop 1b
    pop cx
    ret

survived16:
    pushf
    pop dx
    mov eax, 0x600d600d
    call emit16
    movzx eax, dx
    call emit16
    movzx eax, sp
    call emit16
    ret

# The frame below the vector: [error code] ip cs flags [sp ss].  The table says which vectors have an error code.
common16:
    pushaw
    mov bp, sp
    mov bx, ss
    smsw ax
    and ax, 1
    imul ax, ax, 0x50
    mov ds, ax
    movzx eax, word ptr ss:[bp+16]
    mov cx, ax
    call emit16
    lea si, [bp+18]
    smsw ax
    test al, 1
    jz 2f
    cmp cx, 31
    ja 2f
    mov eax, dword ptr cs:[error_codes-_start]
    bt eax, ecx
    jnc 2f
    movzx eax, word ptr ss:[si]
    call emit16
    add si, 2
2:  movzx eax, word ptr ss:[si]
    call emit16
    movzx eax, word ptr ss:[si+2]
    mov di, ax
    call emit16
    movzx eax, word ptr ss:[si+4]
    call emit16
    smsw ax
    test al, 1
    jz 3f
    test di, 3
    jz 3f
    movzx eax, word ptr ss:[si+6]
    call emit16
    movzx eax, word ptr ss:[si+8]
    call emit16
3:  mov eax, esp
    call emit16
    movzx eax, bx
    call emit16
    mov ax, cs
    movzx eax, ax
    call emit16
    pushfd
    pop eax
    call emit16
    cmp cx, 1
    jne 4f
    mov eax, dr6
    call emit16
    mov eax, 0xffff0ff0
    mov dr6, eax
4:  cmp word ptr ds:[0x504], 0
    jne 5f
    mov ax, ds
    mov es, ax
    mov ss, ax
    xor sp, sp
    push 2
    popf
    mov ax, word ptr ds:[0x500]
    jmp ax
5:  mov word ptr ds:[0x504], 0
    popaw
    add sp, 2
    iret
    .balign 4
error_codes: .long 0x60227d00
    .balign 16
stubs16:
    .set number, 0
    .rept 0x84
    .balign 16
    push offset number
    jmp common16
    .set number, number+1
    .endr
    .balign 16

gdt_image:
    .quad 0
    .quad 0x00cf9b000000ffff, 0x00cf93000000ffff, 0x00af9b000000ffff, 0x00cf93000000ffff
    .quad 0x00cffb000000ffff, 0x00cff3000000ffff, 0x00affb000000ffff, 0x00cff3000000ffff
    .quad 0x00009b0f0000ffff, 0x000093000000ffff, 0x0000fb0f0000ffff, 0x0000f3000000ffff
    .quad 0x00cf1b000000ffff, 0x00cf13000000ffff, 0x00cf9f000000ffff
    .quad 0x0000890120000067, 0
    .quad 0x000081012000002b, 0x00cf99000000ffff, 0x0000930400000fff, 0x00cf91000000ffff
gdt_end:
gdt_pointer: .word gdt_end - gdt_image - 1
    .long 0x11000
idt_pointer: .word 0x83f
    .long 0x10000
long_idt_pointer: .word 0x83f
    .quad 0x10000

# Into protected mode from 16-bit code, at 32-bit code ``pm``.
    .weak pm
enter_protected:
    mov si, offset gdt_image - _start
    mov ax, 0x1100
    mov es, ax
    xor di, di
    mov cx, offset gdt_end - gdt_image
    rep movsb es:[di], cs:[si]
    data32 lgdt cs:[gdt_pointer-_start]
    data32 lidt cs:[idt_pointer-_start]
    mov eax, cr0
    or al, 1
    mov cr0, eax
    .att_syntax
    ljmpl $8, $pm
    .intel_syntax noprefix

    .code32
emit32:
    out 0xe9, al
    ror eax, 8
    out 0xe9, al
    ror eax, 8
    out 0xe9, al
    ror eax, 8
    out 0xe9, al
    ror eax, 8
    ret

survived32:
    pushfd
    mov eax, 0x600d600d
    call emit32
    pop eax
    call emit32
    mov eax, esp
    call emit32
    ret

common32:
    pushad
    mov ebp, esp
    mov ebx, ds
    mov eax, 0x10
    mov ds, ax
    mov es, ax
    mov ecx, [ebp+32]
    mov eax, ecx
    call emit32
    lea esi, [ebp+36]
    cmp ecx, 31
    ja 2f
    bt dword ptr [error_codes], ecx
    jnc 2f
    mov eax, ss:[esi]
    call emit32
    add esi, 4
2:  mov eax, ss:[esi]
    call emit32
    mov eax, ss:[esi+4]
    call emit32
    mov eax, ss:[esi+8]
    mov edi, eax
    cmp dword ptr ds:[0x508], 0
    jne 8f
    btr eax, 16
8:  call emit32
    bt edi, 17
    jc 6f
    test dword ptr ss:[esi+4], 3
    jz 3f
    jmp 7f
6:  mov eax, ss:[esi+20]
    call emit32
    mov eax, ss:[esi+24]
    call emit32
    mov eax, ss:[esi+28]
    call emit32
    mov eax, ss:[esi+32]
    call emit32
    movzx eax, bx
    call emit32
7:  mov eax, ss:[esi+12]
    call emit32
    mov eax, ss:[esi+16]
    call emit32
3:  mov eax, esp
    call emit32
    mov eax, ss
    call emit32
    mov eax, cs
    call emit32
    pushfd
    pop eax
    call emit32
    cmp ecx, 1
    jne 4f
    mov eax, dr6
    call emit32
    mov eax, 0xffff0ff0
    mov dr6, eax
4:  cmp ecx, 14
    jne 4f
    mov eax, cr2
    call emit32
4:  cmp dword ptr ds:[0x504], 0
    jne 5f
    mov eax, 0x10
    mov ss, ax
    mov fs, ax
    mov gs, ax
    mov esp, 0x20000
    push 2
    popfd
    jmp dword ptr ds:[0x500]
5:  mov dword ptr ds:[0x504], 0
    mov ds, bx
    popad
    add esp, 4
    iretd
    .balign 16
stubs32:
    .set number, 0
    .rept 0x84
    .balign 16
    push offset number
    jmp common32
    .set number, number+1
    .endr
    .balign 16

    .code64
emit64:
    push rax
    call emit
    pop rax
    shr rax, 32
emit:
    out 0xe9, al
    ror eax, 8
    out 0xe9, al
    ror eax, 8
    out 0xe9, al
    ror eax, 8
    out 0xe9, al
    ror eax, 8
    ret

survived64:
    pushfq
    mov eax, 0x600d600d
    call emit
    pop rax
    call emit
    mov rax, rsp
    call emit64
    ret

common64:
    push rax
    push rcx
    push rbp
    push rsi
    push rdi
    mov rbp, rsp
    mov ecx, [rbp+40]
    mov eax, ecx
    call emit
    lea rsi, [rbp+48]
    cmp ecx, 31
    ja 2f
    bt dword ptr [rip+error_codes], ecx
    jnc 2f
    mov rax, [rsi]
    call emit64
    add rsi, 8
2:  mov rax, [rsi]
    call emit64
    mov rax, [rsi+8]
    call emit64
    mov rax, [rsi+16]
    cmp dword ptr ds:[0x508], 0
    jne 8f
    btr eax, 16
8:  call emit64
    mov rax, [rsi+24]
    call emit64
    mov rax, [rsi+32]
    call emit64
    mov rax, rsp
    call emit64
    mov eax, ss
    call emit
    mov eax, cs
    call emit
    pushfq
    pop rax
    call emit64
    cmp ecx, 1
    jne 4f
    mov rax, dr6
    call emit
    mov eax, 0xffff0ff0
    mov dr6, rax
4:  cmp ecx, 14
    jne 4f
    mov rax, cr2
    call emit64
4:  cmp dword ptr ds:[0x504], 0
    jne 5f
    mov eax, 0x20
    mov ss, ax
    mov rsp, 0x20000
    push 2
    popfq
    mov eax, ds:[0x500]
    jmp rax
5:  mov dword ptr ds:[0x504], 0
    pop rdi
    pop rsi
    pop rbp
    pop rcx
    pop rax
    add rsp, 8
    iretq
    .balign 16
stubs64:
    .set number, 0
    .rept 0x84
    .balign 16
    push offset number
    jmp common64
    .set number, number+1
    .endr
    .balign 16

# -- preludes: from real mode to the first probe at ``body`` ---------------------------------------------------------------

.ifdef real16
    .code16
prelude:
    mov bx, 0
    mov ax, offset stubs16 - _start
1:  mov [bx], ax
    mov word ptr [bx+2], 0xf000
    add ax, 16
    add bx, 4
    cmp bx, 0x83 * 4
    jbe 1b
.endif

.ifdef protected32
    .code16
prelude:
    jmp enter_protected
    .code32
pm: mov eax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov fs, ax
    mov gs, ax
    mov esp, 0x20000
    mov ebx, 0x10000
    mov eax, offset stubs32
    xor ecx, ecx
1:  mov [ebx], ax
    mov word ptr [ebx+2], 8
    mov word ptr [ebx+4], offset gates
    mov edx, eax
    shr edx, 16
    mov word ptr [ebx+6], dx
    add eax, 16
    add ebx, 8
    inc ecx
    cmp ecx, 0x84
    jb 1b
    or byte ptr [0x10000 + 3 * 8 + 5], 0x60
    or byte ptr [0x10000 + 4 * 8 + 5], 0x60
    or byte ptr [0x10000 + 0x80 * 8 + 5], 0x60
    or byte ptr [0x10000 + 0x81 * 8 + 5], 0x61
    mov dword ptr [0x12004], 0x28000
    mov dword ptr [0x12008], 0x10
    mov eax, 0x80
    ltr ax
.endif

.ifdef protected16
    .code16
prelude:
    jmp enter_protected
    .code32
pm: mov eax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov fs, ax
    mov gs, ax
    mov esp, 0x20000
    mov ebx, 0x10000
    mov eax, offset stubs16 - _start
    xor ecx, ecx
1:  mov [ebx], ax
    mov word ptr [ebx+2], 0x48
    mov word ptr [ebx+4], offset gates
    mov edx, eax
    shr edx, 16
    mov word ptr [ebx+6], 0
    add eax, 16
    add ebx, 8
    inc ecx
    cmp ecx, 0x84
    jb 1b
    or byte ptr [0x10000 + 3 * 8 + 5], 0x60
    or byte ptr [0x10000 + 4 * 8 + 5], 0x60
    or byte ptr [0x10000 + 0x80 * 8 + 5], 0x60
    or byte ptr [0x10000 + 0x81 * 8 + 5], 0x61
    mov word ptr [0x12002], 0x8000
    mov word ptr [0x12004], 0x50
    mov eax, 0x90
    ltr ax
    .att_syntax
    ljmpw $0x48, $1f - _start
    .intel_syntax noprefix
    .code16
1:  mov ax, 0x50
    mov ds, ax
    mov es, ax
    mov ss, ax
    xor sp, sp
.endif

.ifdef long64
    .code16
prelude:
    jmp enter_protected
    .code32
pm: mov eax, 0x10
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov fs, ax
    mov gs, ax
    mov dword ptr [0x13000], 0x14007
    mov dword ptr [0x14000], 0x15007
    mov dword ptr [0x14018], 0xc0000080 + offset rights
    xor ecx, ecx
    mov eax, 0x80 + offset rights
1:  mov [0x15000 + ecx * 8], eax
    add eax, 0x200000
    inc ecx
    cmp ecx, 8
    jb 1b
    mov dword ptr [0x15008], 0x16007
    xor ecx, ecx
    mov eax, 0x200000 + offset rights
1:  mov [0x16000 + ecx * 8], eax
    add eax, 0x1000
    inc ecx
    cmp ecx, 512
    jb 1b
    mov eax, 0x13000
    mov cr3, eax
    mov eax, cr4
    or eax, 0x620
    mov cr4, eax
    mov ecx, 0xc0000080
    rdmsr
    or eax, 0x901
    wrmsr
    mov eax, 0x80010001
    mov cr0, eax
    .att_syntax
    ljmpl $0x18, $lm
    .intel_syntax noprefix
    .code64
lm: mov eax, 0x20
    mov ds, ax
    mov es, ax
    mov ss, ax
    mov fs, ax
    mov gs, ax
    mov rsp, 0x20000
    mov ebx, 0x10000
    mov eax, offset stubs64
    xor ecx, ecx
1:  mov [rbx], ax
    mov word ptr [rbx+2], 0x18
    mov word ptr [rbx+4], 0x8e00
    mov edx, eax
    shr edx, 16
    mov word ptr [rbx+6], dx
    mov qword ptr [rbx+8], 0
    add eax, 16
    add ebx, 16
    inc ecx
    cmp ecx, 0x84
    jb 1b
    or byte ptr [0x10000 + 3 * 16 + 5], 0x60
    or byte ptr [0x10000 + 4 * 16 + 5], 0x60
    or byte ptr [0x10000 + 0x80 * 16 + 5], 0x60
    or byte ptr [0x10000 + 0x81 * 16 + 5], 0x61
    lidt [rip+long_idt_pointer]
    mov dword ptr [0x12004], 0x28000
    mov dword ptr [0x12024], 0x2c000
    mov eax, 0x80
    ltr ax
.endif

body:
