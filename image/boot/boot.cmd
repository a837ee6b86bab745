# U-Boot's script: takes a root slot as RAUC's convention wants it and starts the kernel that is inside of it.
# BOOT_ORDER and BOOT_x_LEFT are not kept in U-Boot's own environment but in joinery.env: it is one sector, so a power cut
# leaves either the old or the new one, and a new U-Boot brings its own defaults. Without a good joinery.env the first
# slot with a kernel is started.

setenv state ${devtype} ${devnum}:1
setenv BOOT_ORDER A B
setenv BOOT_A_LEFT 3
setenv BOOT_B_LEFT 3
if load ${state} ${scriptaddr} joinery.env; then
  if env import -c ${scriptaddr} 0x200 BOOT_ORDER BOOT_A_LEFT BOOT_B_LEFT; then
    echo "joinery: order ${BOOT_ORDER}, A ${BOOT_A_LEFT}, B ${BOOT_B_LEFT}"
  else
    echo "joinery: joinery.env is damaged"
    setenv BOOT_ORDER A B
    setenv BOOT_A_LEFT 3
    setenv BOOT_B_LEFT 3
  fi
fi

# The device tree that the firmware, or the emulator, filled in, says which kernel of the slot this board needs.
if test "${fdt_addr}" = ""; then setenv fdt_addr ${fdtcontroladdr}; fi
setenv board
if fdt addr ${fdt_addr}; then
  setenv chip
  fdt get value chip / compatible 1
  if test "${chip}" = brcm,bcm2712; then setenv board -pi5; fi
fi

# Away from where U-Boot's defaults lie too close together for a kernel of 53 MB: kernel 16 MB after, initrd 80 MB after.
setexpr kernel_at ${kernel_addr_r} + 0x1000000
setexpr initrd_at ${kernel_addr_r} + 0x5000000

setenv slot
for try in ${BOOT_ORDER}; do
  if test "${slot}" = ""; then
    setenv part
    if test "${try}" = A && test ${BOOT_A_LEFT} -gt 0; then setenv part 2; setexpr BOOT_A_LEFT ${BOOT_A_LEFT} - 1; fi
    if test "${try}" = B && test ${BOOT_B_LEFT} -gt 0; then setenv part 3; setexpr BOOT_B_LEFT ${BOOT_B_LEFT} - 1; fi
    if test "${part}" != ""; then
      if load ${devtype} ${devnum}:${part} ${kernel_at} boot/Image${board}; then
        if load ${devtype} ${devnum}:${part} ${initrd_at} boot/initrd${board}; then
          setenv slot ${try}
          setenv initrd_size ${filesize}
        fi
      fi
    fi
  fi
done

if test "${slot}" = ""; then
  echo "joinery: no slot has a try left: all get three again"
  setenv BOOT_A_LEFT 3
  setenv BOOT_B_LEFT 3
  env export -c -s 0x200 ${scriptaddr} BOOT_ORDER BOOT_A_LEFT BOOT_B_LEFT
  fatwrite ${state} ${scriptaddr} joinery.env 0x200
  reset
fi

# The try is counted before it is made.
env export -c -s 0x200 ${scriptaddr} BOOT_ORDER BOOT_A_LEFT BOOT_B_LEFT
fatwrite ${state} ${scriptaddr} joinery.env 0x200

# joinery_args is for someone at the serial console.
setenv bootargs rauc.slot=${slot} @ARGS@ ${joinery_args}
booti ${kernel_at} ${initrd_at}:${initrd_size} ${fdt_addr}
echo "joinery: slot ${slot} did not start"
reset
